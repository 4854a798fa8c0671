"""Chooses what a config leaves open (`auto`) for the ranks that were started.

None of it changes what is learned: samples per step, and losses but for the order of sums, are the
same under every engine, every number of ranks and every way to divide a step.
"""

import logging
import math
from collections.abc import Iterator

import numpy as np

from helm_scale.config import PretrainConfig
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.sampler import Sampler
from helm_scale.parallel import startup, strategies
from helm_scale.pretraining.memory.plan import GIB, MemoryPlanner

_log = logging.getLogger(__name__)
EVEN, UNEVEN = 0.95, 0.8  # balance that is aimed at; balance below which the plan warns
_JUDGED_STEPS = 20  # first steps, from which the balance is taken
_SMALL_STATES = 0.05  # of the memory: to shard less than this gains nothing
_USABLE_MEMORY = 0.9  # of the device; libraries and fragmentation take the rest


def choose(
    config: PretrainConfig, dataset: Dataset, *, world_size: int, ranks_per_node: int
) -> PretrainConfig:
    """Choose the engine and the ranks that share molecules, where the config says `auto`.

    Raises:
        ValueError: no engine can do what the settings ask for on so many ranks.
    """
    execution = config.execution
    if execution.pair_ranks == "auto":
        sharing = _pair_ranks(config, dataset, world_size, ranks_per_node)
        execution = execution.model_copy(update={"pair_ranks": sharing})
        config = config.model_copy(update={"execution": execution})
    if execution.engine == "auto":
        engine = _engine(config, dataset, world_size, ranks_per_node)
        execution = execution.model_copy(update={"engine": engine})
        config = config.model_copy(update={"execution": execution})
    return config


def sampler_for(
    config: PretrainConfig, dataset: Dataset, *, world_size: int, per_rank: int = 1
) -> Sampler:
    """Make the sampler, with as many micro-batches as the config says or, for `auto`, as it takes.

    A number that the ranks do not divide is rounded up; some micro-batches may then be empty.

    Args:
        per_rank: micro-batches of a rank, for `auto`.
    Raises:
        ValueError: the config wants more micro-batches than molecules.
    """
    training, ranks = config.training, max(world_size // config.execution.sharing, 1)
    wanted = training.micro_batches
    if wanted == "auto":
        micro_batches, packed_for = ranks * per_rank, ranks
    else:
        if wanted > training.batch_molecules:
            raise ValueError(
                f"training.batch_molecules: got {training.batch_molecules}, wanted at least"
                f" training.micro_batches = {wanted}; or set that to auto"
            )
        micro_batches = packed_for = -(-wanted // ranks) * ranks
    return dataset.sampler(
        batch_molecules=training.batch_molecules,
        micro_batches=micro_batches,
        ranks=packed_for,
        seed=training.seed,
    )


def fit_memory_limit(
    config: PretrainConfig, dataset: Dataset, *, world_size: int
) -> tuple[PretrainConfig, Sampler]:
    """Choose chunks, and under `auto` the micro-batches of a rank, for execution.memory_limit_gib.

    Without a limit the chunks stay, and a rank works on its share of a step at once.

    Raises:
        ValueError: a molecule of the training split cannot fit; names it.
    """
    execution, training = config.execution, config.training
    sampler = sampler_for(config, dataset, world_size=world_size)
    if not execution.memory_limit_gib:
        return config, sampler
    ranks = max(world_size // execution.sharing, 1)
    most = -(-training.batch_molecules // ranks) if training.micro_batches == "auto" else 1
    for per_rank in _doublings(most):
        sampler = sampler_for(config, dataset, world_size=world_size, per_rank=per_rank)
        planner = MemoryPlanner(config, dataset, sampler=sampler, world_size=world_size)
        try:
            plan = planner.choose()
        except ValueError:
            if per_rank < most:
                continue
            raise
        break
    _log.info("memory of a rank:\n%s", plan.text(execution.memory_limit_gib))
    chosen = execution.model_copy(update=plan.chunks._asdict())
    return config.model_copy(update={"execution": chosen}), sampler


def balance(sampler: Sampler, costs: np.ndarray, ranks: int) -> float:
    """Mean over maximum of the ranks' costs in the first steps: the share of time they work."""
    shares = []
    for step in range(_JUDGED_STEPS):
        packed = sampler.micro_batches_of(step)
        loads = [
            sum(float(costs[members].sum()) for members in packed[rank::ranks])
            for rank in range(ranks)
        ]
        shares.append(np.mean(loads) / max(loads))
    return float(np.mean(shares))


def _pair_ranks(
    config: PretrainConfig, dataset: Dataset, world_size: int, ranks_per_node: int
) -> int:
    """The fewest ranks of a node that share molecules and are evenly loaded."""
    if config.needs_whole_molecules:
        return 1
    best, most = 1, 0.0
    for sharing in _divisors(math.gcd(world_size, ranks_per_node)):
        execution = config.execution.model_copy(update={"pair_ranks": sharing})
        trial = config.model_copy(update={"execution": execution})
        sampler = sampler_for(trial, dataset, world_size=world_size)
        even = balance(sampler, dataset.cost, world_size // sharing)
        if even > most:
            best, most = sharing, even
        if even >= EVEN:
            break
    return best


def _engine(config: PretrainConfig, dataset: Dataset, world_size: int, ranks_per_node: int) -> str:
    """The simplest engine that can do what the settings ask for and fits the memory."""
    execution = config.execution
    names = ["ddp" if world_size > 1 else "single", "fsdp2"]
    capable = [name for name in names if not _lacks(config, name)]
    if not capable:
        raise ValueError(
            f"execution.engine: got 'auto', but {' and '.join(names)} lack"
            f" {', '.join(_lacks(config, names[-1]))}; name another engine"
        )
    first, *others = capable
    if not others or world_size == 1:  # one rank has nothing to share out
        return first
    limit = execution.memory_limit_gib * GIB or _USABLE_MEMORY * startup.device_memory(
        execution, ranks_per_node
    )
    trial = config.model_copy(update={"execution": execution.model_copy(update={"engine": first})})
    sampler = sampler_for(trial, dataset, world_size=world_size)
    planner = MemoryPlanner(trial, dataset, sampler=sampler, world_size=world_size)
    if planner.bytes_of_states <= _SMALL_STATES * limit or planner.fits(limit):
        return first
    return others[-1]


def _lacks(config: PretrainConfig, name: str) -> list[str]:
    """What the settings ask for and an engine cannot do."""
    engine, execution = strategies.spec_of(name), config.execution
    asked = {
        "low_precision": config.training.working_precision == "bfloat16",
        "replicates": execution.replicas > 1,
        "offloads": execution.cpu_offload,
        "compiles": execution.compile,
    }
    return [field for field, wanted in asked.items() if wanted and not getattr(engine, field)]


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)


def _doublings(most: int) -> Iterator[int]:
    """1, 2, 4, ..., and `most` last."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most
