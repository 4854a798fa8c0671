"""Pictures of an evaluation, as PNG without a display."""
