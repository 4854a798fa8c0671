"""DeepSpeed ZeRO-2: optimiser states and gradients are cut over the ranks."""

from helm_scale.parallel.strategies import deepspeed

ENGINE = deepspeed.engine_of(stage=2)
