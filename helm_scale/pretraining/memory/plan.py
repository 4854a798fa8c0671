"""Bytes that a rank needs, line by line, and the chunks that fit a limit.

Weights, gradients, optimiser and average follow from the parameters and from how an engine cuts
them; activations and labels of the largest micro-batch from a rehearsal (footprint.py). A limit is
met at the least cost in time: as configured if that fits, else smaller chunks, else more
recomputation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, pi
from typing import NoReturn, cast, get_args

import numpy as np

from helm_scale.config import ExecutionConfig, PretrainConfig
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.sampler import Sampler
from helm_scale.parallel import strategies
from helm_scale.parallel.strategies.spec import Shardable
from helm_scale.pretraining.memory.footprint import (
    Load,
    Memory,
    Rehearsal,
    label_bytes,
    parameter_bytes,
)

DENSITY = 0.12  # atoms per cubic Angstrom, as in polyethylene: bounds how many lie within a cutoff
SMALLEST = 32  # pairs or edges of a chunk; smaller ones save little beside weights and node states
STEPS = 100  # whose micro-batches are looked at
NAMED = 5  # molecules that a message names
GIB = 2**30
LEVELS: tuple[str, ...] = get_args(ExecutionConfig.model_fields["recompute"].annotation)


@dataclass(frozen=True)
class RankPlan:
    """What one rank needs.

    Attributes:
        memory: chunks and recomputation. load: largest micro-batch. states: bytes held all the
            time, by name.
        labels, activations: bytes while a micro-batch runs. optimizer_step: bytes while the
            optimiser steps.
        host: bytes in the memory of the CPU where states are offloaded.
    """

    memory: Memory
    load: Load
    states: Mapping[str, int]
    labels: int
    activations: int
    optimizer_step: int
    host: int

    @property
    def total(self) -> int:
        """Peak bytes on the device."""
        return sum(self.states.values()) + max(self.labels + self.activations, self.optimizer_step)

    def text(self, limit_gib: float) -> str:
        """One line per kind, and what was chosen."""
        rows = {
            **self.states,
            f"labels of the largest micro-batch ({self.load.atoms:,} atoms)": self.labels,
            f"activations ({self.load.edges:,} message edges, {self.load.pairs:,} pairs at most)": self.activations,
            "optimiser's step, after the activations are gone": self.optimizer_step,
            "peak": self.total,
        }
        if self.host:
            rows["offloaded to the memory of the CPU"] = self.host
        limit = (
            f"for execution.memory_limit_gib = {limit_gib:g}"
            if limit_gib
            else "as configured, without a limit"
        )
        chosen = ", ".join(f"{name} {value}" for name, value in self.memory._asdict().items())
        return "\n".join(
            [
                *(f"  {in_gib(count):>10} GiB  {name}" for name, count in rows.items()),
                f"chunks {limit}: {chosen}",
            ]
        )


class Planner:
    """Plans the ranks of one training run.

    Args:
        dataset, sampler: what is trained on, in which order. world_size: number of ranks.
    """

    def __init__(
        self, config: PretrainConfig, dataset: Dataset, sampler: Sampler, world_size: int
    ) -> None:
        self._config, self._dataset, self._sampler, self._world_size = (
            config,
            dataset,
            sampler,
            world_size,
        )
        self.rehearsal = Rehearsal(
            config.model, dataset.elements, config.training.working_precision == "bfloat16"
        )
        self._states, self._host = held(self.rehearsal, config, world_size)
        self._optimizer_step = ceil(
            self.rehearsal.optimizer_step(config.training) / _shards(config.execution, world_size)
        )

    def choose(self) -> RankPlan:
        """The plan as configured or, under a limit, the first one that fits.

        Raises:
            ValueError: a molecule does not fit even with the smallest chunks (names it), or a
                micro-batch of several.
        """
        execution, load = self._config.execution, self._largest()
        limit = execution.memory_limit_gib * GIB
        if not limit:
            return self._need(
                load, Memory(execution.pair_chunk, execution.recompute, execution.message_chunk)
            )
        for level in _levels(execution):
            *larger, smallest = candidates(execution, level)
            last = self._need(load, smallest)
            if last.total <= limit:
                return next(
                    (
                        plan
                        for plan in (self._need(load, memory) for memory in larger)
                        if plan.total <= limit
                    ),
                    last,
                )
        self._refuse(limit, last)

    def epoch(self, load: Load, recompute: str) -> str:
        """Steps, samples, edges, pairs and operations of an epoch; `load` is its sum over all
        samples."""
        samples, settings = (
            len(self._dataset.split(self._config.data.train_split)),
            self._config.training,
        )
        operations = self.rehearsal.operations(load, recompute)
        shares = self._world_size
        return "\n".join(
            f"{name}: {ceil(samples / settings.batch_molecules):,} steps, {samples / parts:,.0f} samples, {load.edges / parts:,.0f} message"
            f" edges, {load.pairs / parts:,.0f} pairs, {operations / parts:.3g} floating-point operations of matrix products"
            for name, parts in (("an epoch", 1), (f"of which each of {shares} ranks", shares))
        )

    def _need(self, load: Load, memory: Memory) -> RankPlan:
        """The plan of a rank for a micro-batch, of which ranks that share molecules take equal
        parts."""
        parts = self._config.execution.pair_ranks
        own = Load(load.atoms, -(-load.edges // parts), -(-load.pairs // parts))
        engine = strategies.spec_of(self._config.execution.engine)
        alone = not engine.distributed and self._sampler.micro_batches == 1
        activations = self.rehearsal.activations(own, memory, first=alone)
        if alone:  # gradients come with the activations
            activations = max(activations - self._states["gradients"], 0)
        labels = label_bytes(self.rehearsal.batch(load))
        return RankPlan(
            memory, own, self._states, labels, activations, self._optimizer_step, self._host
        )

    def _largest(self) -> Load:
        """Most atoms, edges and pairs of any micro-batch of the first steps, and of any
        molecule."""
        sizes = self._dataset.atoms
        bins = [
            members for step in range(STEPS) for members in self._sampler.micro_batches_of(step)
        ]
        largest = int(sizes[self._dataset.split(self._config.data.train_split)].max())
        loads = [self._load(np.array([largest])), *(self._load(sizes[members]) for members in bins)]
        return Load(*map(max, zip(*loads, strict=True)))

    def _load(self, atoms: np.ndarray) -> Load:
        """Bound on the size of a micro-batch of molecules of so many atoms."""
        model = self._config.model
        edges, pairs = (
            int(most_pairs(atoms, cutoff).sum())
            for cutoff in (model.trunk_cutoff, model.pair_cutoff)
        )
        return Load(int(atoms.sum()), edges, pairs)

    def _refuse(self, limit: float, found: RankPlan) -> NoReturn:
        """Say what does not fit `found.memory`, the last choice."""
        samples = self._dataset.split(self._config.data.train_split)
        sizes = self._dataset.atoms[samples]
        known = np.unique(sizes)

        def fits(size: int) -> bool:
            return self._need(self._load(np.array([size])), found.memory).total <= limit

        low, high = 0, len(known)  # sizes before `low` fit, from `high` on they do not
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if fits(int(known[middle])) else (low, middle)
        tail = f"limit {in_gib(limit)} GiB (execution.memory_limit_gib)"
        if low == len(known):
            raise ValueError(
                f"training.micro_batches: a micro-batch of {found.load.atoms} atoms wants {in_gib(found.total)} GiB even with"
                f" {_named(found.memory)}, {tail}; each molecule alone fits: raise training.micro_batches ({self._sampler.micro_batches}),"
                " execution.pair_ranks or the limit"
            )
        wrong = samples[sizes >= known[low]]
        wrong = wrong[np.argsort(-self._dataset.atoms[wrong], kind="stable")]
        alone = [
            self._need(self._load(self._dataset.atoms[[index]]), found.memory)
            for index in wrong[:NAMED]
        ]
        named = "; ".join(
            f"'{self._dataset.key[index]}' ({one.load.atoms} atoms, {one.load.pairs} pairs) wants {in_gib(one.total)} GiB"
            for index, one in zip(wrong[:NAMED], alone, strict=True)
        )
        raise ValueError(
            f"{self._dataset.folder}: {len(wrong)} molecules of {known[low]} atoms or more do not fit even with {_named(found.memory)}:"
            f" {named}{'; ...' if len(wrong) > NAMED else ''}; {tail}. Raise the limit or execution.pair_ranks, take an engine that shards"
            " weights, or leave these molecules out of the dataset (helm-scale shards import --exclude)"
        )


def candidates(execution: ExecutionConfig, level: str) -> list[Memory]:
    """Chunks of one level of recomputation, from the configured ones down to SMALLEST by halves."""
    pairs, edges = execution.pair_chunk, execution.message_chunk
    found = [Memory(pairs, level, edges)]
    pairs = pairs or 2048
    while max(pairs, edges if level != "none" else 0) > SMALLEST:
        pairs, edges = (max(size // 2, min(size, SMALLEST)) for size in (pairs, edges))
        found.append(Memory(pairs, level, edges))
    return found


def next_to_try(execution: ExecutionConfig) -> str:
    """The setting that saves most beside what is set, as flags."""
    later = [level for level in _levels(execution) if level != execution.recompute]
    smaller = candidates(execution, execution.recompute)[1:]
    if not execution.pair_chunk:
        return "--execution.pair_chunk 512"
    if execution.recompute == "none" and later:
        return f"--execution.recompute {later[0]}"
    if smaller:
        return f"--execution.pair_chunk {smaller[0].pair_chunk} --execution.message_chunk {smaller[0].message_chunk}"
    return (
        f"--execution.recompute {later[0]}"
        if later
        else f"--execution.pair_ranks {2 * execution.pair_ranks}, or more training.micro_batches"
    )


def held(
    rehearsal: Rehearsal, config: PretrainConfig, world_size: int
) -> tuple[dict[str, int], int]:
    """Bytes that a rank holds all the time, by name, and bytes offloaded to the CPU.

    What an engine cuts, keeps twice, gathers or offloads is said by its EngineSpec. Buckets of
    DeepSpeed and buffers of NCCL are not counted.
    """
    execution, model, training = config.execution, rehearsal.model, config.training
    itemsize = 8 if config.model.dtype == "float64" else 4
    whole, working = parameter_bytes([model], itemsize), parameter_bytes([model])
    hidden = (
        sum(p.numel() * itemsize for p in model.hidden_matrices())
        if training.optimizer == "muon"
        else 0
    )
    moments, average = 2 * whole - hidden, whole if training.ema_decay else 0
    units = [parameter_bytes([unit]) for unit in cast(Shardable, model).sharding_units()]
    engine, cut = strategies.spec_of(execution.engine), _shards(execution, world_size)
    running = working if engine.float32_copy else whole
    states = {
        "weights": _part(running, cut) if engine.shards_weights else running,
        "gradients": _part(running, cut) if engine.shards_gradients else running,
        "gathered units": engine.gathered_units * max(units),
        "float32 copy": 2 * _part(whole, cut) if engine.float32_copy else 0,  # and its gradient
        "optimiser": _part(moments, cut),
        "average of the weights": _part(average, cut),
    }
    host = {}
    if execution.cpu_offload:
        host = {name: states.pop(name) for name in engine.offloads}
        host["average of the weights"] = states.pop("average of the weights")
    # Gradients are always listed.
    states |= {"gradients": 0} if "gradients" in host else {}
    listed = {name: count for name, count in states.items() if count or name == "gradients"}
    return listed, sum(host.values())


def most_pairs(atoms: np.ndarray, cutoff: float) -> np.ndarray:
    """Bound on the pairs within a cutoff (Angstrom) in molecules of so many atoms: [n] int64."""
    within = DENSITY * 4 / 3 * pi * cutoff**3
    atoms = np.asarray(atoms, dtype=np.int64)
    return np.ceil(atoms * np.minimum(atoms - 1, within) / 2).astype(np.int64)


def in_gib(count: float) -> str:
    """Bytes in GiB, for people."""
    return f"{count / GIB:,.3f}"


def _levels(execution: ExecutionConfig) -> Iterator[str]:
    """Levels of recomputation from the configured one on."""
    first = LEVELS.index(execution.recompute)
    yield from LEVELS[first:]


def _shards(execution: ExecutionConfig, world_size: int) -> int:
    """Ranks that hold the optimiser's states once among them."""
    sharded = strategies.spec_of(execution.engine).shards_optimizer
    return world_size // execution.replicas if sharded else 1


def _part(count: int, cut: int) -> int:
    return -(-count // cut)


def _named(memory: Memory) -> str:
    return ", ".join(f"{name} {value}" for name, value in memory._asdict().items())
