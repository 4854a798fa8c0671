"""Optimisers by name, learning-rate schedule and average of the weights.

What `training.optimizer: NAME` stands for is OPTIMIZER in optim/NAME.py. A new optimiser is one
such file, and its name among those that config.TrainingConfig.optimizer allows.
"""

from importlib import import_module
from typing import cast

from helm_scale.optim.spec import OptimizerSpec


def spec_of(name: str) -> OptimizerSpec:
    """The optimiser of that name."""
    return cast(OptimizerSpec, import_module(f"{__name__}.{name}").OPTIMIZER)
