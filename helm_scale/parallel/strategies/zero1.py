"""DeepSpeed ZeRO-1: optimiser states are cut over the ranks."""

from helm_scale.parallel.strategies import deepspeed

ENGINE = deepspeed.engine_of(stage=1)
