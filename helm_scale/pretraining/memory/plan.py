"""Plans the memory of a rank, line by line, and chooses the chunks that fit a limit.

Weights, gradients, optimiser and average follow from the parameters and from how an engine shards
them (states.py); activations and labels of the largest micro-batch from an estimate of the step
(footprint.py). A limit is met at the least cost in time: as configured if that fits, else smaller
chunks, else more recomputation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, pi
from typing import NoReturn

import numpy as np

from helm_scale.config import PretrainConfig
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.sampler import Sampler
from helm_scale.parallel import strategies
from helm_scale.pretraining.memory.chunks import (
    ChunkSettings,
    candidates,
    configured,
    levels_from,
)
from helm_scale.pretraining.memory.footprint import BatchSize, StepEstimator, label_bytes
from helm_scale.pretraining.memory.states import ranks_per_replica, state_bytes

# Atoms per cubic Angstrom: polyethylene, dense among organics. Manifests hold no distances, so this
# bounds how many neighbours an atom has within a cutoff.
ATOM_DENSITY = 0.12
PLANNED_STEPS = 100  # first steps whose micro-batches are looked at
NAMED_MOLECULES = 5  # molecules that a message names at most
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What one rank needs.

    Attributes:
        chunks: chunks and recomputation. batch: size of the largest micro-batch.
        states: bytes held all the time, by name.
        labels, activations: bytes while a micro-batch runs.
        optimizer_step: bytes while the optimiser steps.
        host: bytes in the memory of the CPU where states are offloaded.
    """

    chunks: ChunkSettings
    batch: BatchSize
    states: Mapping[str, int]
    labels: int
    activations: int
    optimizer_step: int
    host: int

    @property
    def peak(self) -> int:
        """Peak bytes on the device."""
        return sum(self.states.values()) + max(self.labels + self.activations, self.optimizer_step)

    def text(self, limit_gib: float) -> str:
        """One line per kind of memory, and the chunks."""
        batch = self.batch
        passes = f"activations ({batch.edges:,} message edges, {batch.pairs:,} pairs at most)"
        rows = {
            **self.states,
            f"labels of the largest micro-batch ({batch.atoms:,} atoms)": self.labels,
            passes: self.activations,
            "optimiser's step, after the activations are gone": self.optimizer_step,
            "peak": self.peak,
        }
        if self.host:
            rows["offloaded to the memory of the CPU"] = self.host
        limited = f"for execution.memory_limit_gib = {limit_gib:g}"
        limit = limited if limit_gib else "as configured, without a limit"
        lines = [f"  {in_gib(count):>10} GiB  {name}" for name, count in rows.items()]
        return "\n".join([*lines, f"chunks {limit}: {self.chunks.text()}"])


class MemoryPlanner:
    """Plans the memory of the ranks of one training run.

    Args:
        dataset, sampler: what is trained on, in which order. world_size: number of ranks.
    """

    def __init__(
        self, config: PretrainConfig, dataset: Dataset, *, sampler: Sampler, world_size: int
    ) -> None:
        self._config, self._dataset = config, dataset
        self._sampler, self._world_size = sampler, world_size
        low = config.training.working_precision == "bfloat16"
        self.estimator = StepEstimator(config.model, dataset.elements, low=low)
        self._states = state_bytes(self.estimator.model, config, world_size)
        whole_step = self.estimator.optimizer_step_bytes(config.training)
        self._optimizer_step = ceil(whole_step / ranks_per_replica(config.execution, world_size))

    @property
    def bytes_of_states(self) -> int:
        """Bytes that a rank holds all the time."""
        return sum(self._states.device.values())

    def fits(self, limit: float) -> bool:
        """Whether a rank stays within so many bytes, as configured."""
        plan = self.plan(self._largest_batch(), configured(self._config.execution))
        return plan.peak <= limit

    def choose(self) -> MemoryPlan:
        """The plan as configured or, under a limit, the first one that fits.

        Raises:
            ValueError: a molecule does not fit even with the smallest chunks (names it), or a
                micro-batch of several.
        """
        execution, batch = self._config.execution, self._largest_batch()
        limit = execution.memory_limit_gib * GIB
        if not limit:
            return self.plan(batch, configured(execution))
        # Recomputation costs time in every step, smaller chunks next to none: levels go outside.
        for level in levels_from(execution.recompute):
            *larger, smallest = candidates(execution, level)
            last = self.plan(batch, smallest)
            if last.peak > limit:
                continue  # larger chunks of this level need more still
            plans = (self.plan(batch, chunks) for chunks in larger)
            return next((plan for plan in plans if plan.peak <= limit), last)
        self._refuse(limit, last)

    def plan(self, batch: BatchSize, chunks: ChunkSettings) -> MemoryPlan:
        """The plan of a rank for a micro-batch; ranks that share molecules take equal parts."""
        execution = self._config.execution
        pair_ranks = execution.sharing
        own = BatchSize(batch.atoms, -(-batch.edges // pair_ranks), -(-batch.pairs // pair_ranks))
        # Without others to sum with and with one micro-batch, gradients appear with the backward
        # pass: the peak of activations has them already, though they are listed among the states.
        alone = not strategies.spec_of(execution.engine).distributed
        fresh = alone and self._sampler.micro_batches == 1
        activations = self.estimator.activation_bytes(own, chunks, first=fresh)
        if fresh:
            activations = max(activations - self._states.device["gradients"], 0)
        return MemoryPlan(
            chunks=chunks,
            batch=own,
            states=self._states.device | {"constant tables": self.estimator.table_bytes},
            labels=label_bytes(self.estimator.batch(batch)),
            activations=activations,
            optimizer_step=self._optimizer_step,
            host=self._states.host,
        )

    def epoch(self, batch: BatchSize, recompute: str) -> str:
        """Steps, samples, edges, pairs and operations of an epoch, of all ranks and of each.

        Args:
            batch: sum over all samples.
        """
        samples = len(self._dataset.split(self._config.data.train_split))
        steps = ceil(samples / self._config.training.batch_molecules)
        operations = self.estimator.flops(batch, recompute)

        def line(name: str, share: int) -> str:
            return (
                f"{name}: {steps:,} steps, {samples / share:,.0f} samples,"
                f" {batch.edges / share:,.0f} message edges, {batch.pairs / share:,.0f} pairs,"
                f" {operations / share:.3g} floating-point operations of matrix products"
            )

        each = f"of which each of {self._world_size} ranks"
        return "\n".join([line("an epoch", 1), line(each, self._world_size)])

    def bound(self, atoms: np.ndarray) -> BatchSize:
        """Bound on the size of a micro-batch of molecules of so many atoms."""
        model = self._config.model
        edges, pairs = (
            int(max_pairs(atoms, cutoff).sum())
            for cutoff in (model.trunk_cutoff, model.pair_cutoff)
        )
        return BatchSize(int(atoms.sum()), edges, pairs)

    def _largest_batch(self) -> BatchSize:
        """Most atoms, edges and pairs of the first steps' micro-batches and of any molecule."""
        sizes = self._dataset.atoms
        largest = int(sizes[self._dataset.split(self._config.data.train_split)].max())
        batches = [
            sizes[samples]
            for step in range(PLANNED_STEPS)
            for samples in self._sampler.micro_batches_of(step)
        ]
        # componentwise: the batch with most edges need not be that with most pairs
        bounds = [self.bound(atoms) for atoms in [np.array([largest]), *batches]]
        return BatchSize(*map(max, zip(*bounds, strict=True)))

    def _refuse(self, limit: float, last: MemoryPlan) -> NoReturn:
        """Say what does not fit; `last` has the smallest chunks."""
        atoms = self._dataset.atoms[self._dataset.split(self._config.data.train_split)]
        smallest = self._first_too_large(np.unique(atoms), limit, last.chunks)
        budget = f"limit {in_gib(limit)} GiB (execution.memory_limit_gib)"
        if smallest is None:
            raise ValueError(
                f"training.micro_batches: a micro-batch of {last.batch.atoms} atoms wants"
                f" {in_gib(last.peak)} GiB even with {last.chunks.text()}, {budget};"
                " each molecule alone fits: raise training.micro_batches"
                f" ({self._sampler.micro_batches}), execution.pair_ranks or the limit"
            )
        count = int((atoms >= smallest).sum())
        raise ValueError(
            f"{self._dataset.folder}: {count} molecules of {smallest} atoms or more do not fit"
            f" even with {last.chunks.text()}:"
            f" {self._largest_molecules(smallest, last.chunks)}; {budget}. Raise the limit or"
            " execution.pair_ranks, take an engine that shards weights, or leave these molecules"
            " out of the dataset (helm-scale shards import --exclude)"
        )

    def _first_too_large(
        self, sizes: np.ndarray, limit: float, chunks: ChunkSettings
    ) -> int | None:
        """The smallest number of atoms (of `sizes`, ascending) that does not fit; None if all fit.

        By bisection, as every estimate runs the step once.
        """
        low, high = 0, len(sizes)  # sizes before `low` fit, from `high` on they do not
        while low < high:
            middle = (low + high) // 2
            fits = self.plan(self.bound(sizes[[middle]]), chunks).peak <= limit
            low, high = (middle + 1, high) if fits else (low, middle)
        return int(sizes[low]) if low < len(sizes) else None

    def _largest_molecules(self, smallest: int, chunks: ChunkSettings) -> str:
        """The largest training molecules of at least so many atoms, by key, with what they want."""
        samples = self._dataset.split(self._config.data.train_split)
        samples = samples[self._dataset.atoms[samples] >= smallest]
        samples = samples[np.argsort(-self._dataset.atoms[samples], kind="stable")]
        names = []
        for index in samples[:NAMED_MOLECULES]:
            alone = self.plan(self.bound(self._dataset.atoms[[index]]), chunks)
            names.append(
                f"'{self._dataset.key[index]}' ({alone.batch.atoms} atoms,"
                f" {alone.batch.pairs} pairs) wants {in_gib(alone.peak)} GiB"
            )
        return "; ".join(names + ["..."] * (len(samples) > NAMED_MOLECULES))


def max_pairs(atoms: np.ndarray, cutoff: float) -> np.ndarray:
    """Bound on the pairs within a cutoff (Angstrom) in molecules of so many atoms: [n] int64."""
    neighbours = ATOM_DENSITY * 4 / 3 * pi * cutoff**3  # atoms of a sphere of that radius
    atoms = np.asarray(atoms, dtype=np.int64)
    return np.ceil(atoms * np.minimum(atoms - 1, neighbours) / 2).astype(np.int64)


def in_gib(count: float) -> str:
    """Bytes in GiB, for people."""
    return f"{count / GIB:,.3f}"
