"""The learning-rate schedule."""

from math import cos, pi


def cosine_schedule(step: int, *, steps: int, warmup_steps: int) -> float:
    """Factor of the peak rate at a step (from 0).

    Linear warm-up to 1, then a cosine that reaches 0 at `steps`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    # At least 1, for runs that end while they warm up.
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))
