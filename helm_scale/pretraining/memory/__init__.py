"""What a training step needs, and the chunks that fit a limit."""
