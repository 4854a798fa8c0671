"""Steps, optimisers, checkpoints and the loop."""
