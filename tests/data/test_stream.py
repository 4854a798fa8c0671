"""Batches made ahead are those made in place.

A run goes on where it stopped, on any number of ranks.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from helm_scale.basis import layout, packing
from helm_scale.config import DataConfig, ModelConfig
from helm_scale.data.format import codec
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.data.graphs.collate import collate
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.stream import BatchMaker, Stream
from helm_scale.data.loading.workers import SharedBuffer, in_processes
from helm_scale.types import GraphBatch, couple_labels
from tests.data.labels import write_dataset

QUICKSTART = Path(__file__).parents[2] / "data_shards" / "quickstart"
EXACT = ModelConfig(dtype="float64", pair_cutoff=3.0)
RESIDUAL = ModelConfig(dtype="float64", baseline="minao", pair_cutoff=4.0)


def equal(first: GraphBatch, second: GraphBatch, tolerance: float = 0.0) -> bool:
    """Whether two batches agree in every field."""
    for field in fields(GraphBatch):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, torch.Tensor):
            if (
                a.dtype != b.dtype
                or a.shape != b.shape
                or (a.numel() and float((a - b).abs().max()) > tolerance)
            ):
                return False
        elif a != b:
            return False
    return True


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The committed molecules: 58 elements."""
    return Dataset.open(DataConfig(path=str(QUICKSTART)))


@pytest.mark.parametrize("first,second", [(1, 8), (8, 8), (17, 53)])
def test_the_sparse_coupling_is_that_of_the_shell_pairs(first: int, second: int) -> None:
    for kind in (
        layout.offsite_layout("def2-tzvpd", first, second),
        layout.onsite_layout("def2-tzvpd", first, "semilocal"),
    ):
        blocks = torch.randn(
            3, *kind.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        component, row, column, value = packing.packing_entries(kind)
        packed = np.zeros((3, kind.size))
        np.add.at(packed, (slice(None), component), value * blocks.numpy()[:, row, column])
        assert np.abs(packed - packing.pack(blocks, kind).numpy()).max() < 1e-13
        assert len(value) < 5 * kind.size


@pytest.mark.parametrize("config", [EXACT, RESIDUAL], ids=["H", "H-H0"])
def test_stored_blocks_give_the_batch_of_the_dense_matrices(
    config: ModelConfig, dataset: Dataset
) -> None:
    samples = list(range(0, len(dataset), 3))
    made = BatchMaker(dataset, config)(samples)
    assert (
        equal(
            couple_labels(made.batch, "cpu"),
            collate([dataset.read(i) for i in samples], config),
            1e-13,
        )
        and not made.skipped
    )


def test_float32_targets_keep_what_float32_can_keep(dataset: Dataset) -> None:
    samples = dataset.split("test").tolist()
    for changes in ({}, {"baseline": "minao"}):
        configs = [ModelConfig(dtype=d, **changes) for d in ("float64", "float32")]
        exact, rounded = (
            couple_labels(BatchMaker(dataset, config)(samples).batch, "cpu") for config in configs
        )
        assert rounded.offsite_target.dtype == torch.float32 and torch.equal(
            rounded.onsite_target, exact.onsite_target
        )
        error = (rounded.offsite_target.double() - exact.offsite_target).abs()
        assert (
            float(error.max()) < 3e-7 * float(exact.offsite_target.abs().max())
            and float(error.mean()) < 1e-8
        )


def test_processes_make_the_same_batches_in_the_same_order(dataset: Dataset) -> None:
    bins = [list(range(n, 97, 13)) for n in range(13)] + [[], [5]]
    here = list(Stream(BatchMaker(dataset, RESIDUAL)).batches(bins))
    there = list(
        Stream(BatchMaker(dataset, RESIDUAL), workers=3).batches(bins)
    )  # holds more batches than there are buffers
    assert len(here) == len(there) and all(
        equal(couple_labels(a, "cpu"), couple_labels(b, "cpu"))
        for a, b in zip(here, there, strict=True)
    )
    assert not multiprocessing.active_children()


def test_memory_is_used_again_only_when_its_batch_is_gone(dataset: Dataset) -> None:
    batches = Stream(BatchMaker(dataset, EXACT), workers=1).batches([[n] for n in range(40)])
    kept, sums = [], []
    for number, batch in enumerate(batches):
        if number % 7 == 0:
            kept.append(batch.labels.hamiltonian.offsite[:50])  # a view keeps it, too
            sums.append(kept[-1].clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, sums, strict=True))


def at_hand(path: Path) -> bool:
    """Whether the first sample of a shard is in the page cache.

    Asking fetches it, so that a second answer tells nothing.
    """
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(4096)], 512, os.RWF_NOWAIT) == 4096
        except BlockingIOError:
            return False


def test_the_disk_fetches_samples_before_their_batch_is_made(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    announced, other = (dataset.folder / shard.name for shard in dataset.shards[:2])
    for path in (announced, other):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    BatchMaker(ShardReader(dataset), EXACT).announced([0])
    time.sleep(1.0)
    if at_hand(other):
        pytest.skip("files here are always in memory")
    assert at_hand(announced)


def test_batches_are_announced_one_by_one_ahead_of_their_use(dataset: Dataset) -> None:
    announced: list[Sequence[int]] = []

    class Noted(BatchMaker):
        def announced(self, samples: Sequence[int]) -> Sequence[int]:
            announced.append(samples)
            return super().announced(samples)

    batches = Stream(Noted(dataset, EXACT), workers=2).batches([n] for n in range(20))
    for number, _ in enumerate(batches):
        assert announced == [[n] for n in range(min(number + 4, 20))]


@dataclass(frozen=True)
class Numbers:
    """A result for `in_processes`."""

    place: int
    values: torch.Tensor


def test_slots_are_few_whatever_the_number_of_batches() -> None:
    def make(samples: Sequence[int], empty: Callable[..., torch.Tensor]) -> Numbers:
        values = empty(1000, torch.float64)
        return Numbers(values.data_ptr(), values.fill_(samples[0]))

    places = set()
    for number, found in enumerate(in_processes(make, ([n] for n in range(100)), count=2, kept=1)):
        assert float(found.values.min()) == float(found.values.max()) == number
        places.add(found.place)
    assert len(places) <= 6


def test_a_slot_grows_and_keeps_what_it_held() -> None:
    buffer = SharedBuffer()
    buffer.map(100)[:5] = b"12345"
    assert buffer.map(10_000_000)[:5] == b"12345" and len(buffer.map()) >= 10_000_000
    buffer.close()


def test_an_error_comes_in_its_turn_and_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    path = dataset.folder / "shard-000001.tar"
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    config = ModelConfig(basis="def2-svp", parity="full")
    for workers in (0, 2):
        batches = Stream(BatchMaker(ShardReader(dataset), config), workers=workers).batches(
            [[0], [1], [2], [3]]
        )
        assert [next(batches).keys for _ in range(2)] == [("hof-0",), ("hof-1",)]
        with pytest.raises(ValueError, match=r"shard-000001.tar, key 'hof-2': bytes have changed"):
            next(batches)
    assert not multiprocessing.active_children()


def test_a_killed_process_is_named_and_none_is_left(dataset: Dataset) -> None:
    batches = Stream(BatchMaker(dataset, EXACT), workers=2).batches([n] for n in range(90))
    next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(
        ChildProcessError, match=r"a data process died \(exit code -9\) over the samples \[\d"
    ):
        list(batches)
    assert not multiprocessing.active_children()


class Ids:
    """A reader that notes what it is asked for, and gives it as a molecule."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.asked = dataset, list[int]()

    def size(self, index: int) -> int:
        """Bytes of a sample."""
        return self.dataset.size(index)

    def read_stored(self, index: int, memory: memoryview) -> codec.StoredSample:
        """The sample."""
        self.asked.append(index)
        return self.dataset.read_stored(index, memory)


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("stopped", [1, 7, 40])
def test_a_resumed_run_sees_the_rest_of_the_uninterrupted_one_on_any_number_of_ranks(
    stopped: int, window: int
) -> None:
    dataset = Dataset.open(DataConfig(path=str(QUICKSTART), shuffle_window=window))
    sampler, last = dataset.sampler(batch_molecules=24, micro_batches=12, seed=3), stopped + 3
    config = ModelConfig(baseline="minao")

    def seen(first: int, world_size: int) -> tuple[list[list[str]], list[int]]:
        steps: list[list[str]] = [[] for _ in range(first, last)]
        readers = [Ids(dataset) for _ in range(world_size)]
        for rank, reader in enumerate(readers):
            for step, batches in zip(
                steps,
                Stream(
                    BatchMaker(reader, config), rank=rank, world_size=world_size, workers=0
                ).steps(sampler, first, last),
                strict=True,
            ):
                step += [key for batch in batches for key in batch.keys]
        return [sorted(step) for step in steps], [
            index for reader in readers for index in reader.asked
        ]

    names = [
        sorted(dataset.key[i] for i in sampler.samples_of(step)) for step in range(stopped, last)
    ]
    for world_size in (1, 2, 3, 4):
        after, asked = seen(stopped, world_size)
        assert after == names
        assert len(asked) == 24 * (last - stopped), "nothing before the resumed step is read"


def test_an_interrupted_mixture_goes_on_with_every_dataset_where_it_was(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", 5), write_dataset(tmp_path / "b", 12, 3)
    path = tmp_path / "b" / "manifest.json"
    path.write_text(
        path.read_text().replace('"source": "random numbers"', '"source": "other numbers"')
    )
    config = DataConfig(
        path=(str(tmp_path / "a"), str(tmp_path / "b")), weights=(0.5, 0.5), shuffle_window=2
    )
    dataset = Dataset.open(config)
    whole = [
        dataset.sampler(batch_molecules=6, micro_batches=2, seed=0).samples_of(step)
        for step in range(30)
    ]
    assert [
        Dataset.open(config).sampler(batch_molecules=6, micro_batches=2, seed=0).samples_of(step)
        for step in range(20, 30)
    ] == whole[20:]
    from_first = sum(i < 5 for step in whole for i in step)
    assert from_first == 90 and {dataset.key[i] for step in whole for i in step if i >= 5} == {
        f"hof-{n}" for n in range(11)
    }
    assert dataset.split("test").tolist() == [4, 16] and dataset.read(16).key == "hof-11"
    assert dataset.hash != Dataset.open(config.model_copy(update={"weights": (0.4, 0.6)})).hash
    config = ModelConfig(basis="def2-svp", parity="full")
    (batch,) = islice(Stream(BatchMaker(dataset, config)).batches([[0, 5]]), 1)
    assert batch.keys == ("hof-0", "hof-0")


def test_datasets_of_two_methods_do_not_mix(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a"), write_dataset(tmp_path / "b")
    path = tmp_path / "b" / "manifest.json"
    path.write_text(path.read_text().replace('"xc": "pbe"', '"xc": "b3lyp"'))
    with pytest.raises(ValueError, match=r"data\.path: .*/a and .*/b differ: xc 'pbe' and 'b3lyp'"):
        Dataset.open(DataConfig(path=(str(tmp_path / "a"), str(tmp_path / "b"))))


def test_one_dataset_without_windows_is_ordered_as_ever() -> None:
    dataset = Dataset.open(DataConfig(path=str(QUICKSTART)))
    assert dataset.hash == Manifest.load(QUICKSTART).hash
    assert dataset.sampler(batch_molecules=8, micro_batches=2, seed=0).samples_of(0) == [
        24,
        77,
        45,
        49,
        43,
        50,
        0,
        60,
    ]
