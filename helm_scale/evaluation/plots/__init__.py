"""Pictures of an evaluation, as PNG without a display."""

from helm_scale.extras import needs

with needs("plots"):
    import matplotlib  # noqa: F401
