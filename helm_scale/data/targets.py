"""Blocks of H - H0 -> packed irreps, the targets of a batch.

Molecules bring their blocks as shards store them: flat, the upper triangle of every atom's block, then the blocks of the
pairs i < j. Blocks of one kind are gathered into the columns of a table, coupled by one sparse product and written into the
target: some 3 ns per matrix element on one busy core, several times less than a product per shell pair, and little enough to
leave it in the processes that read.

Axes: N atoms of all molecules, P unordered pairs, B blocks of one kind of shape a x b, S packed components.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements, layout, packing
from helm_scale.batch import Molecule, Segment
from helm_scale.config import ModelConfig
from helm_scale.data import codec

Empty = Callable[[int, torch.dtype], Tensor]  # makes uninitialised flat tensors
CHUNK = 3 << 15  # matrix elements coupled at once: they stay in the processor's cache
COLUMNS, LANES = 256, 16  # blocks coupled at once: at most so many, in multiples of a vector register


def new_tensor(count: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised flat tensor."""
    return torch.empty(count, dtype=dtype)


@dataclass(frozen=True)
class Blocks:
    """H - H0 of the molecules of a batch, molecule after molecule.

    Attributes:
        sizes: AOs of every atom, [N].
        onsite: upper triangles of the atoms' blocks, row-major, float64 Hartree. triangle: where each atom's begins, [N].
        offsite: blocks of the pairs i < j of each molecule, row-major, float64 or float32; the target takes their dtype.
        row, column: the block of atoms i < j begins at row[i] + sizes[i] * column[j]: [N] each.
    """

    sizes: np.ndarray
    onsite: np.ndarray
    triangle: np.ndarray
    offsite: np.ndarray
    row: np.ndarray
    column: np.ndarray


@dataclass(frozen=True)
class _Coupling:
    """A sparse matrix by rows: component c is the sum of value[k] * block[element[k]], start[c] <= k < start[c+1]."""

    element: Tensor
    start: Tensor
    value: Tensor


def dense_blocks(molecules: Sequence[Molecule], config: ModelConfig) -> Blocks:
    """Cut the matrices of molecules into blocks, all float64.

    Raises:
        ValueError: a Hamiltonian is of another size than the basis says, or H0 is missing; names the molecule.
    """
    offsets = [layout.ao_offsets(config.basis, molecule.atomic_numbers) for molecule in molecules]
    flat = [codec.flat_blocks(_residual(m, int(o[-1]), config), o) for m, o in zip(molecules, offsets, strict=True)]
    onsite, offsite = (np.concatenate([np.zeros(0), *parts]) for parts in (zip(*flat, strict=True) if flat else ((), ())))
    return _placed(offsets, onsite, offsite)


def stored_blocks(samples: Sequence[codec.Stored], config: ModelConfig, scratch: Empty = new_tensor) -> Blocks:
    """The blocks of stored samples, off-site ones of the model's dtype.

    Args:
        scratch: makes the flat arrays that blocks are joined in.
    Raises:
        ValueError: H0 is missing, or a matrix holds NaN or infinity; names the molecule.
    """
    whole = [sample.matrices["hamiltonian"] for sample in samples]
    part = [_baseline(sample, config) for sample in samples]
    onsite = scratch(sum(len(one["onsite"]) for one in whole), torch.float64).numpy()
    offsite = scratch(sum(len(one["offsite"]) for one in whole), getattr(torch, config.dtype)).numpy()
    on = off = 0
    for sample, h, h0 in zip(samples, whole, part, strict=True):
        on, start = on + len(h["onsite"]), on
        onsite[start:on] = h["onsite"] if h0 is None else h["onsite"] - h0["onsite"]
        codec.check_finite(f"{sample.where}: hamiltonian_onsite", onsite[start:on])
        off, start = off + len(h["offsite"]), off
        _subtract(h, h0, offsite[start:off])
        codec.check_finite(f"{sample.where}: hamiltonian_offsite", offsite[start:off])
    return _placed([sample.offsets for sample in samples], onsite, offsite)


def dense_matrix(molecules: Sequence[Molecule], name: str, config: ModelConfig) -> Blocks:
    """The same for another matrix of the molecules, "overlap" or "baseline_hamiltonian", by the same way."""
    for molecule in molecules:
        _check_present(molecule.key, name, getattr(molecule, name) is not None)
    return dense_blocks([replace(m, hamiltonian=getattr(m, name)) for m in molecules], config.model_copy(update={"baseline": "none"}))


def stored_matrix(samples: Sequence[codec.Stored], name: str, config: ModelConfig, scratch: Empty = new_tensor) -> Blocks:
    """The same for another matrix of stored samples."""
    for sample in samples:
        _check_present(sample.molecule.key, name, name in sample.matrices)
    named = [replace(s, matrices={"hamiltonian": s.matrices[name]}, where=f"{s.where}: {name} as") for s in samples]
    return stored_blocks(named, config.model_copy(update={"baseline": "none"}), scratch)


def _check_present(key: str, name: str, present: bool) -> None:
    if not present:
        remedy = "--overlap true" if name == "overlap" else "--baseline minao"
        raise ValueError(f"molecule '{key}': no {name}, which a setting of the model or its loss asks for; generate data with {remedy}")


def _subtract(h: Mapping[str, np.ndarray], h0: Mapping[str, np.ndarray] | None, out: np.ndarray) -> None:
    """Off-site elements of H - H0; the difference comes first: it is small enough to take up what float32 had lost of either."""
    if h0 is None:
        out[:] = h["offsite"]
    else:
        np.subtract(h["offsite"], h0["offsite"], out=out, dtype=out.dtype)
        out[h0["remainder_index"]] -= h0["remainder"]
    out[h["remainder_index"]] += h["remainder"]


def _baseline(sample: codec.Stored, config: ModelConfig) -> dict[str, np.ndarray] | None:
    if config.baseline == "none":
        return None
    _check_baseline(sample.molecule.key, "baseline_hamiltonian" in sample.matrices, config)
    return sample.matrices["baseline_hamiltonian"]


def _residual(molecule: Molecule, nao: int, config: ModelConfig) -> np.ndarray:
    assert molecule.hamiltonian is not None
    if molecule.hamiltonian.shape != (nao, nao):
        raise ValueError(
            f"molecule '{molecule.key}': hamiltonian has shape {molecule.hamiltonian.shape}, wanted {(nao, nao)} in {config.basis}"
        )
    if config.baseline == "none":
        return molecule.hamiltonian
    _check_baseline(molecule.key, molecule.baseline_hamiltonian is not None, config)
    return molecule.hamiltonian - molecule.baseline_hamiltonian


def _check_baseline(key: str, present: bool, config: ModelConfig) -> None:
    if not present:
        raise ValueError(
            f"molecule '{key}': model.baseline is '{config.baseline}' but the data holds no H0;"
            f" generate it with --baseline {config.baseline}"
        )


def _placed(offsets: Sequence[np.ndarray], onsite: np.ndarray, offsite: np.ndarray) -> Blocks:
    """Say where every block lies.

    Within a molecule block (i, j) follows all blocks of the atoms before i, which reach to the last AO, and those of i with
    the atoms between: at sum_{k<i} n_k (nao - o_{k+1}) + n_i (o_j - o_{i+1}), o the first AO of an atom.
    """
    nothing = np.zeros(0, dtype=np.int64)
    sizes = np.concatenate([nothing, *map(np.diff, offsets)])
    rows, columns, start = [nothing], [nothing], 0
    for o in offsets:
        n = np.diff(o)
        before = start + np.cumsum(n * (o[-1] - o[1:]))
        rows.append(np.concatenate([[start], before[:-1]]) - n * o[1:])
        columns.append(o[:-1])
        start = int(before[-1])
    triangles = sizes * (sizes + 1) // 2
    return Blocks(sizes, onsite, np.cumsum(triangles) - triangles, offsite, np.concatenate(rows), np.concatenate(columns))


def onsite_target(blocks: Blocks, order: np.ndarray, segments: Sequence[Segment], config: ModelConfig, empty: Empty) -> Tensor:
    """Packed irreps of the on-site blocks, segment after segment, float64.

    Args:
        order: atoms, sorted by element.
    Raises:
        ValueError: parity "semilocal" would drop a part of a block.
    """
    kinds = [layout.onsite_layout(config.basis, segment.first, config.parity) for segment in segments]
    target = empty(sum((s.stop - s.start) * kind.size for s, kind in zip(segments, kinds, strict=True)), torch.float64)
    flat, place = target.numpy(), 0
    for segment, kind in zip(segments, kinds, strict=True):
        size, count = kind.shape[0] * (kind.shape[0] + 1) // 2, segment.stop - segment.start
        triangles = _gathered(blocks.onsite, blocks.triangle[order[segment.start : segment.stop]], size)
        packed = flat[place : place + count * kind.size].reshape(count, kind.size)
        _couple([triangles.T], _onsite_coupling(config.basis, segment.first, config.parity), packed)
        _check_nothing_dropped(triangles, packed, segment.first, kind, config.parity)
        place += packed.size
    return target


def offsite_target(blocks: Blocks, pairs: np.ndarray, segments: Sequence[Segment], config: ModelConfig, empty: Empty) -> Tensor:
    """Packed irreps of the pairs' blocks, segment after segment, of the blocks' dtype.

    Args:
        pairs: [2, P] atoms, lower atomic number first; in every segment the pairs that come as (i, j), i < j, before the others.
    """
    kinds = [layout.offsite_layout(config.basis, s.first, s.second) for s in segments]
    dtype = str(blocks.offsite.dtype)
    target = empty(sum((s.stop - s.start) * kind.size for s, kind in zip(segments, kinds, strict=True)), getattr(torch, dtype))
    low, high = np.minimum(*pairs), np.maximum(*pairs)
    begin, turned = blocks.row[low] + blocks.sizes[low] * blocks.column[high], pairs[0] > pairs[1]
    flat, place = target.numpy(), 0
    for segment, kind in zip(segments, kinds, strict=True):
        coupling = _offsite_coupling(config.basis, segment.first, segment.second, dtype)
        a, b = kind.shape
        for start in range(segment.start, segment.stop, _columns(kind.size)):
            stop = min(start + _columns(kind.size), segment.stop)
            middle = stop - int(np.count_nonzero(turned[start:stop]))
            as_stored = _gathered(blocks.offsite, begin[start:middle], kind.size).reshape(-1, a, b).transpose(1, 2, 0)
            transposed = _gathered(blocks.offsite, begin[middle:stop], kind.size).reshape(-1, b, a).transpose(2, 1, 0)
            packed = flat[place : place + (stop - start) * kind.size].reshape(-1, kind.size)
            _couple([as_stored, transposed], coupling, packed)
            place += packed.size
    return target


def matrix_elements(blocks: Blocks, starts: np.ndarray, pairs: np.ndarray) -> Tensor:
    """Matrix elements of every molecule within the Hamiltonian cutoff, both triangles: [molecules] int64.

    Args:
        starts: first atom of every molecule, and the number of atoms.
    """
    counted = blocks.sizes**2
    np.add.at(counted, pairs[0], 2 * blocks.sizes[pairs[0]] * blocks.sizes[pairs[1]])
    return torch.from_numpy(np.add.reduceat(counted, starts[:-1]) if len(counted) else counted)


def _couple(blocks: Sequence[np.ndarray], coupling: _Coupling, packed: np.ndarray) -> None:
    """Couple blocks [elements, n] or [a, b, n], joined along n, into packed irreps [all n, S].

    The sparse product is a sum of weighted rows, which is what an embedding bag is: with the blocks as columns of a table it
    runs through whole vector registers.
    """
    count = len(packed)
    table = np.empty((*blocks[0].shape[:-1], -(-count // LANES) * LANES), packed.dtype)  # what fills up a row is ignored
    place = 0
    for part in blocks:
        table[..., place : place + part.shape[-1]] = part
        place += part.shape[-1]
    rows = torch.from_numpy(table.reshape(-1, table.shape[-1]))
    product = torch.embedding_bag(rows, coupling.element, coupling.start, mode=0, per_sample_weights=coupling.value)[0]  # 0: sum
    turned = table.reshape(-1)[: packed.size].reshape(packed.shape)  # the table has served; the caches hold it
    np.multiply(product.numpy()[:, :count], packed.dtype.type(1), out=turned.T)  # reads along rows; a copy is half as fast
    packed[:] = turned


def _columns(size: int) -> int:
    """Blocks of so many matrix elements that are coupled at once."""
    return max(LANES, min(COLUMNS, CHUNK // size) // LANES * LANES)


def _gathered(flat: np.ndarray, begin: np.ndarray, size: int) -> np.ndarray:
    """The runs of `size` elements that begin there: [n, size]. Each is copied as one item, which is twice as fast as by elements."""
    items = np.ndarray(max(len(flat) - size + 1, 0), np.dtype((np.void, size * flat.itemsize)), flat, strides=flat.strides)
    return items[begin].view(flat.dtype).reshape(-1, size)


@cache
def _offsite_coupling(basis: str, first: int, second: int, dtype: str) -> _Coupling:
    """Blocks [a, b] between two elements -> packed irreps."""
    kind = layout.offsite_layout(basis, first, second)
    component, row, column, value = packing.packing_entries(kind)
    return _by_component(component, row * kind.shape[1] + column, value, dtype)


@cache
def _onsite_coupling(basis: str, atomic_number: int, parity: str) -> _Coupling:
    """Upper triangles [a*(a+1)/2] of an element's on-site blocks -> packed irreps."""
    kind = layout.onsite_layout(basis, atomic_number, parity)
    component, row, column, value = packing.packing_entries(kind)
    low, high, size = np.minimum(row, column), np.maximum(row, column), kind.shape[0]
    return _by_component(component, low * size - low * (low - 1) // 2 + high - low, value, "float64")


def _by_component(component: np.ndarray, element: np.ndarray, value: np.ndarray, dtype: str) -> _Coupling:
    """Sort the entries by component; every component has one at least."""
    order = np.argsort(component, kind="stable")
    start = np.searchsorted(component[order], np.arange(component.max() + 1))
    places, starts = (torch.from_numpy(values.astype(np.int32)) for values in (element[order], start))
    return _Coupling(places, starts, torch.from_numpy(value[order]).to(getattr(torch, dtype)))


def _check_nothing_dropped(triangles: np.ndarray, packed: np.ndarray, atomic_number: int, kind: layout.BlockLayout, parity: str) -> None:
    """Compare the squared norms of blocks and irreps."""
    diagonal = np.cumsum([0, *range(kind.shape[0], 1, -1)])
    kept = float(np.square(packed).sum())
    dropped = 2 * float(np.square(triangles).sum()) - float(np.square(triangles[:, diagonal]).sum()) - kept
    if dropped > 1e-8 + 1e-12 * kept:
        raise ValueError(
            f"on-site blocks of {elements.symbol(atomic_number)}: parity '{parity}' drops {max(dropped, 0.0) ** 0.5:.1e} Eh;"
            " hybrid functionals need model.parity: full (or the blocks are not symmetric)"
        )
