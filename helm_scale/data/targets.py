"""Blocks of H - H0 -> packed irreps, the targets of a batch.

Molecules bring their blocks as shards store them: flat, the upper triangle of every atom's block, then the blocks of the
pairs i < j. Blocks of one kind are gathered row by row and coupled by one sparse product per kind, written straight into
the target: 3 to 4 ns per matrix element on one core, several times less than a product per shell pair, and little enough
to leave it in the processes that read.

Axes: N atoms of all molecules, P unordered pairs, B blocks of one kind of shape a x b, S packed components.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements, layout, packing
from helm_scale.batch import Molecule, Segment
from helm_scale.config import ModelConfig
from helm_scale.data import codec

Empty = Callable[[int, torch.dtype], Tensor]  # makes the flat tensors that targets are written into
CHUNK = 256  # blocks coupled at once: they stay in the processor's cache


def new_tensor(count: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised flat tensor."""
    return torch.empty(count, dtype=dtype)


@dataclass(frozen=True)
class Blocks:
    """H - H0 of one molecule.

    Attributes:
        key: its name. offsets: first AO of every atom, [N+1].
        onsite: upper triangles of the atoms' blocks, row-major, float64 Hartree.
        offsite: blocks of the pairs i < j, row-major, float64 or float32; the target takes their dtype.
    """

    key: str
    offsets: np.ndarray
    onsite: np.ndarray
    offsite: np.ndarray


def dense_blocks(molecule: Molecule, config: ModelConfig) -> Blocks:
    """Cut the matrices of a molecule into blocks, all float64.

    Raises:
        ValueError: the Hamiltonian is of another size than the basis says, or H0 is missing; names the molecule.
    """
    assert molecule.hamiltonian is not None
    offsets = layout.ao_offsets(config.basis, molecule.atomic_numbers)
    if molecule.hamiltonian.shape != (offsets[-1], offsets[-1]):
        raise ValueError(
            f"molecule '{molecule.key}': hamiltonian has shape {molecule.hamiltonian.shape},"
            f" wanted {(int(offsets[-1]), int(offsets[-1]))} in {config.basis}"
        )
    matrix = molecule.hamiltonian
    if config.baseline != "none":
        _check_baseline(molecule.key, molecule.baseline_hamiltonian is not None, config)
        matrix = matrix - molecule.baseline_hamiltonian
    onsite, offsite = codec.flat_blocks(matrix, offsets)
    return Blocks(molecule.key, offsets, onsite, offsite)


def stored_blocks(sample: codec.Stored, config: ModelConfig) -> Blocks:
    """The blocks of a stored sample, off-site ones of the model's dtype. Uses the sample up: its arrays are changed in place.

    Raises:
        ValueError: H0 is missing; names the molecule.
    """
    whole = sample.matrices["hamiltonian"]
    onsite, offsite = whole["onsite"], whole["offsite"].astype(config.dtype, copy=not whole["offsite"].flags.writeable)
    if config.baseline == "none":
        offsite[whole["remainder_index"]] += whole["remainder"]
        return Blocks(sample.molecule.key, sample.offsets, onsite, offsite)
    _check_baseline(sample.molecule.key, "baseline_hamiltonian" in sample.matrices, config)
    part = sample.matrices["baseline_hamiltonian"]
    offsite -= part["offsite"]  # first: the difference is small enough to take up what float32 had lost of either
    offsite[whole["remainder_index"]] += whole["remainder"]
    offsite[part["remainder_index"]] -= part["remainder"]
    return Blocks(sample.molecule.key, sample.offsets, onsite - part["onsite"], offsite)


def _check_baseline(key: str, present: bool, config: ModelConfig) -> None:
    if not present:
        raise ValueError(
            f"molecule '{key}': model.baseline is '{config.baseline}' but the data holds no H0;"
            f" generate it with --baseline {config.baseline}"
        )


def onsite_target(
    blocks: Sequence[Blocks], starts: np.ndarray, order: np.ndarray, segments: Sequence[Segment], config: ModelConfig, empty: Empty
) -> Tensor:
    """Packed irreps of the on-site blocks, segment after segment, float64.

    Args:
        starts: first atom of every molecule, and the number of atoms. order: atoms, sorted by element.
    Raises:
        ValueError: parity "semilocal" would drop a part of a block.
    """
    kinds = [layout.onsite_layout(config.basis, segment.first, config.parity) for segment in segments]
    target = empty(sum((s.stop - s.start) * kind.size for s, kind in zip(segments, kinds, strict=True)), torch.float64)
    molecule = np.searchsorted(starts, order, side="right") - 1
    local = order - starts[molecule]
    first = [np.concatenate([[0], np.cumsum(n * (n + 1) // 2)]) for n in (np.diff(one.offsets) for one in blocks)]
    place = 0
    for segment, kind in zip(segments, kinds, strict=True):
        rows = slice(segment.start, segment.stop)
        size = kind.shape[0] * (kind.shape[0] + 1) // 2
        gathered = np.concatenate(
            [
                _windows(blocks[m].onsite, size)[first[m][local[rows][molecule[rows] == m]]]
                for m in np.unique(molecule[rows])
            ]
        )  # fmt: skip
        packed = target[place : place + len(gathered) * kind.size].view(len(gathered), kind.size)
        torch.mm(_onsite_coupling(config.basis, segment.first, config.parity), torch.from_numpy(gathered).T, out=packed.T)
        _check_nothing_dropped(gathered, packed, segment.first, kind, config.parity)
        place += packed.numel()
    return target


def offsite_target(
    blocks: Sequence[Blocks], starts: np.ndarray, pairs: np.ndarray, segments: Sequence[Segment], config: ModelConfig, empty: Empty
) -> Tensor:
    """Packed irreps of the pairs' blocks, segment after segment, of the blocks' dtype.

    Args:
        starts: first atom of every molecule, and the number of atoms. pairs: [2, P] atoms, lower atomic number first.
    """
    sizes = [layout.offsite_layout(config.basis, s.first, s.second).size for s in segments]
    dtype = str(blocks[0].offsite.dtype) if blocks else "float64"
    target = empty(sum((s.stop - s.start) * size for s, size in zip(segments, sizes, strict=True)), getattr(torch, dtype))
    molecule = np.searchsorted(starts, pairs[0], side="right") - 1
    first, second = pairs - starts[molecule]
    swapped = first > second
    begin = np.zeros(pairs.shape[1], dtype=np.int64)
    for m, one in enumerate(blocks):
        mine = molecule == m
        begin[mine] = _pair_starts(one.offsets)[np.minimum(first, second)[mine], np.maximum(first, second)[mine]]
    place = 0
    for segment, size in zip(segments, sizes, strict=True):
        coupling = _offsite_coupling(config.basis, segment.first, segment.second, dtype)
        for start in range(segment.start, segment.stop, CHUNK):
            rows = slice(start, min(start + CHUNK, segment.stop))
            shape = layout.offsite_layout(config.basis, segment.first, segment.second).shape
            gathered = _gather(blocks, molecule[rows], begin[rows], swapped[rows], shape)
            packed = target[place : place + len(gathered) * size].view(len(gathered), size)
            torch.mm(coupling, gathered.T, out=packed.T)
            place += packed.numel()
    return target


def matrix_elements(blocks: Sequence[Blocks], starts: np.ndarray, pairs: np.ndarray) -> Tensor:
    """Matrix elements of every molecule within the Hamiltonian cutoff, both triangles: [molecules] int64."""
    sizes = np.concatenate([np.diff(one.offsets) for one in blocks] or [np.zeros(0, dtype=np.int64)])
    counted = sizes**2
    np.add.at(counted, pairs[0], 2 * sizes[pairs[0]] * sizes[pairs[1]])
    return torch.from_numpy(np.add.reduceat(counted, starts[:-1]) if len(blocks) else counted)


def _gather(blocks: Sequence[Blocks], molecule: np.ndarray, begin: np.ndarray, swapped: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Blocks [B, a*b] at places `begin` of their molecules; swapped ones are stored b x a and are transposed."""
    size = shape[0] * shape[1]
    parts = [_windows(blocks[m].offsite, size)[begin[molecule == m]] for m in np.unique(molecule)]
    gathered = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if swapped.any():
        turned = gathered[swapped].reshape(-1, shape[1], shape[0]).transpose(0, 2, 1)
        gathered[swapped] = turned.reshape(-1, size)
    return torch.from_numpy(gathered)


def _windows(flat: np.ndarray, size: int) -> np.ndarray:
    """View of all runs of `size` elements, by their first one."""
    return np.lib.stride_tricks.as_strided(flat, (max(len(flat) - size + 1, 0), size), 2 * flat.strides, writeable=False)


def _pair_starts(offsets: np.ndarray) -> np.ndarray:
    """Place of block (i, j), i < j, among the flat off-site elements: [N, N] int64, zero elsewhere."""
    sizes = np.diff(offsets)
    starts = np.zeros((len(sizes), len(sizes)), dtype=np.int64)
    rows, columns = np.triu_indices(len(sizes), k=1)
    counts = sizes[rows] * sizes[columns]
    starts[rows, columns] = np.cumsum(counts) - counts
    return starts


@cache
def _offsite_coupling(basis: str, first: int, second: int, dtype: str) -> Tensor:
    """Sparse [S, a*b]: blocks between two elements -> packed irreps."""
    kind = layout.offsite_layout(basis, first, second)
    component, row, column, value = packing.packing_entries(kind)
    return _sparse(component, row * kind.shape[1] + column, value, (kind.size, kind.shape[0] * kind.shape[1]), dtype)


@cache
def _onsite_coupling(basis: str, atomic_number: int, parity: str) -> Tensor:
    """Sparse [S, a*(a+1)/2]: upper triangles of an element's on-site blocks -> packed irreps."""
    kind = layout.onsite_layout(basis, atomic_number, parity)
    component, row, column, value = packing.packing_entries(kind)
    low, high, size = np.minimum(row, column), np.maximum(row, column), kind.shape[0]
    place = low * size - low * (low - 1) // 2 + high - low
    return _sparse(component, place, value, (kind.size, size * (size + 1) // 2), "float64")


def _sparse(row: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, int], dtype: str) -> Tensor:
    """Compressed sparse rows; entries of one place are added."""
    places, values = torch.from_numpy(np.stack([row, column])), torch.from_numpy(value).to(getattr(torch, dtype))
    entries = torch.sparse_coo_tensor(places, values, shape, check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return entries.coalesce().to_sparse_csr()


def _check_nothing_dropped(triangles: np.ndarray, packed: Tensor, atomic_number: int, kind: layout.BlockLayout, parity: str) -> None:
    """Compare the squared norms of blocks and irreps."""
    row, column = np.triu_indices(kind.shape[0])
    kept = float(packed.square().sum())
    dropped = float((np.square(triangles).sum(axis=0) * np.where(row == column, 1.0, 2.0)).sum()) - kept
    if dropped > 1e-8 + 1e-12 * kept:
        raise ValueError(
            f"on-site blocks of {elements.symbol(atomic_number)}: parity '{parity}' drops {max(dropped, 0.0) ** 0.5:.1e} Eh;"
            " hybrid functionals need model.parity: full (or the blocks are not symmetric)"
        )
