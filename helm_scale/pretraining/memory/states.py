"""Counts the bytes that a rank holds all the time: weights, gradients, optimiser, average."""

from collections.abc import Iterable
from typing import NamedTuple, cast

from torch import nn

from helm_scale import optim
from helm_scale.config import ExecutionConfig, PretrainConfig, TrainingConfig
from helm_scale.model.helm import Helm
from helm_scale.parallel import strategies
from helm_scale.parallel.sharded_matrices import owned_matrices
from helm_scale.parallel.strategies.spec import Shardable


class StateBytes(NamedTuple):
    """Bytes of the states of one rank.

    Attributes:
        device: on the device, by name. host: in the memory of the CPU, where states are offloaded.
    """

    device: dict[str, int]
    host: int


def state_bytes(model: Helm, config: PretrainConfig, world_size: int) -> StateBytes:
    """Count what a rank holds all the time.

    What an engine shards, keeps twice, gathers or offloads is said by its EngineSpec. Buckets of
    DeepSpeed and buffers of NCCL are not counted.

    Args:
        model: in its working precision; its tensors may be on the meta device.
    """
    execution = config.execution
    itemsize = 8 if config.model.dtype == "float64" else 4
    # Shards are rounded up, -(-a // b): the fullest rank decides whether a run fits.
    whole, shards = parameter_bytes([model], itemsize), ranks_per_replica(execution, world_size)
    states = _weights_and_gradients(model, execution, whole, shards) | {
        "optimiser": _optimizer_bytes(model, config.training, itemsize, shards),
        "average of the weights": -(-whole // shards) if config.training.ema_decay else 0,
    }
    offloaded = _offloaded(execution)
    host = sum(count for name, count in states.items() if name in offloaded)
    device = {name: 0 if name in offloaded else count for name, count in states.items()}
    # gradients stay listed even where there are none: activations are counted beside them
    return StateBytes({k: v for k, v in device.items() if v or k == "gradients"}, host)


def _weights_and_gradients(
    model: Helm, execution: ExecutionConfig, whole: int, shards: int
) -> dict[str, int]:
    """What an engine keeps of them; `whole` is all parameters in the optimiser's precision."""
    engine = strategies.spec_of(execution.engine)
    running = parameter_bytes([model]) if engine.float32_copy else whole
    running_shard = -(-running // shards)
    largest = max(parameter_bytes([unit]) for unit in cast(Shardable, model).sharding_units())
    return {
        "weights": running_shard if engine.shards_weights else running,
        "gradients": running_shard if engine.shards_gradients else running,
        "gathered units": engine.gathered_units * largest,
        "float32 copy": 2 * -(-whole // shards) if engine.float32_copy else 0,  # and its gradient
    }


def _optimizer_bytes(model: Helm, training: TrainingConfig, itemsize: int, shards: int) -> int:
    """Bytes that the optimisers keep on the busiest rank."""
    adamw, spec = optim.spec_of("adamw"), optim.spec_of(training.optimizer)
    hidden = [(matrix.shape[0], matrix.shape[1]) for matrix in model.hidden_matrices()]
    kept = [itemsize * spec.kept_numbers(shape, training) for shape in hidden]
    every = sum(adamw.kept_numbers(p.shape, training) for p in model.parameters())
    rest = itemsize * (every - sum(adamw.kept_numbers(shape, training) for shape in hidden))
    if not spec.whole_states:
        return -(-(rest + sum(kept)) // shards)
    busiest = max(sum(kept[i] for i in owned) for owned in owned_matrices(hidden, shards))
    return -(-rest // shards) + busiest


def _offloaded(execution: ExecutionConfig) -> tuple[str, ...]:
    """Names of the states that an engine keeps in the memory of the CPU."""
    if not execution.cpu_offload:
        return ()
    return ("average of the weights", *strategies.spec_of(execution.engine).offloads)


def ranks_per_replica(execution: ExecutionConfig, world_size: int) -> int:
    """Ranks that hold the optimiser's states once among them."""
    if not strategies.spec_of(execution.engine).shards_optimizer:
        return 1
    return world_size // execution.replicas


def parameter_bytes(modules: Iterable[nn.Module], itemsize: int = 0) -> int:
    """Bytes of the parameters of modules.

    Args:
        itemsize: bytes of one number; 0: as the parameters are.
    """
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return sum(p.numel() * (itemsize or p.element_size()) for p in parameters)
