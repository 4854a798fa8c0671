"""DeepSpeed ZeRO-3: optimiser states, gradients and weights are cut over the ranks."""

from helm_scale.parallel.strategies import deepspeed

ENGINE = deepspeed.engine_of(stage=3)
