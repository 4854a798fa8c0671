"""Blocks of H - H0 and of other matrices, joined for a batch and not yet coupled.

This is what the processes that read make of samples; targets.py couples them to irreps.
Molecules bring their blocks as shards store them: flat, the upper triangle of every atom's block,
then the blocks of the pairs i < j.

Axes: N atoms of all molecules, P unordered pairs.
"""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import layout
from helm_scale.config import ModelConfig
from helm_scale.data.format import codec
from helm_scale.data.graphs.targets import BlockLabels, Blocks
from helm_scale.types import BlockBatch, MolecularGraph, Molecule

Empty = Callable[[int, torch.dtype], Tensor]  # makes uninitialised flat tensors


def new_tensor(count: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised flat tensor."""
    return torch.empty(count, dtype=dtype)


def dense_blocks(molecules: Sequence[Molecule], name: str, config: ModelConfig) -> Blocks:
    """Cut a matrix of molecules into blocks, all float64; of the Hamiltonian, H - H0.

    Raises:
        ValueError: a matrix is missing, or of another size than the basis says; names the molecule.
    """
    onsite, offsite = [np.zeros(0)], [np.zeros(0)]
    for molecule in molecules:
        matrix = _residual(molecule, name, config)
        triangles, pairs = codec.flat_blocks(matrix, _offsets(molecule, config))
        onsite.append(triangles)
        offsite.append(pairs)
    return Blocks(*(torch.from_numpy(np.concatenate(blocks)) for blocks in (onsite, offsite)))


def stored_blocks(
    samples: Sequence[codec.StoredSample], name: str, config: ModelConfig, empty: Empty = new_tensor
) -> Blocks:
    """Join a matrix of stored samples; of the Hamiltonian, H - H0.

    On-site blocks are float64, off-site blocks have the model's dtype.

    Args:
        empty: makes the flat tensors that blocks are joined in.
    Raises:
        ValueError: a matrix is missing, or holds NaN or infinity; names the molecule.
    """
    for sample in samples:
        _check_present(sample.molecule.key, name, sample.matrices, config)
    matrices = [sample.matrices[name] for sample in samples]
    onsite = empty(sum(len(h["onsite"]) for h in matrices), torch.float64)
    offsite = empty(sum(len(h["offsite"]) for h in matrices), getattr(torch, config.dtype))
    on = off = 0
    for sample, h in zip(samples, matrices, strict=True):
        h0 = sample.matrices["baseline_hamiltonian"] if _less_baseline(name, config) else None
        on, start = on + len(h["onsite"]), on
        onsite.numpy()[start:on] = h["onsite"] if h0 is None else h["onsite"] - h0["onsite"]
        off, start = off + len(h["offsite"]), off
        _write_offsite(h, h0, offsite.numpy()[start:off])
    # NaN and infinity survive any sum, which unlike a comparison needs no copy.
    if not math.isfinite(onsite.sum() + offsite.sum()):
        for sample in samples:
            sample.check_finite()
    return Blocks(onsite, offsite)


def _write_offsite(
    h: Mapping[str, np.ndarray], h0: Mapping[str, np.ndarray] | None, out: np.ndarray
) -> None:
    """Write the off-site elements of H, or of H - H0."""
    if h0 is None:
        out[:] = h["offsite"]
    else:
        # The difference comes first: it is small enough to take up what float32 had lost of either.
        np.subtract(h["offsite"], h0["offsite"], out=out, dtype=out.dtype)
        out[h0["remainder_index"]] -= h0["remainder"]
    out[h["remainder_index"]] += h["remainder"]


def _residual(molecule: Molecule, name: str, config: ModelConfig) -> np.ndarray:
    present = {matrix for matrix in codec.MATRICES if getattr(molecule, matrix) is not None}
    _check_present(molecule.key, name, present, config)
    matrix, nao = getattr(molecule, name), int(_offsets(molecule, config)[-1])
    if matrix.shape != (nao, nao):
        raise ValueError(
            f"molecule '{molecule.key}': {name} has shape {matrix.shape},"
            f" wanted {(nao, nao)} in {config.basis}"
        )
    return matrix - molecule.baseline_hamiltonian if _less_baseline(name, config) else matrix


def _offsets(molecule: Molecule, config: ModelConfig) -> np.ndarray:
    return layout.ao_offsets(config.basis, molecule.atomic_numbers)


def _less_baseline(name: str, config: ModelConfig) -> bool:
    return name == "hamiltonian" and config.baseline != "none"


def _check_present(key: str, name: str, present: Container[str], config: ModelConfig) -> None:
    if _less_baseline(name, config) and "baseline_hamiltonian" not in present:
        raise ValueError(
            f"molecule '{key}': model.baseline is '{config.baseline}' but the data holds no H0;"
            f" generate it with --baseline {config.baseline}"
        )
    if name not in present:
        remedy = "--overlap true" if name == "overlap" else "--baseline minao"
        raise ValueError(
            f"molecule '{key}': no {name}, which a setting of the model or its loss asks for;"
            f" generate data with {remedy}"
        )


def label(graph: MolecularGraph, matrices: Mapping[str, Blocks], config: ModelConfig) -> BlockBatch:
    """Give a graph the blocks of its matrices, and where each of them begins.

    The block of atoms i < j of a molecule follows those of all atoms before i, which reach to the
    last AO, and those of i with the atoms before j. With n_k AOs of atom k, the first of them o_k,
    it begins at sum_{k<i} n_k (nao - o_{k+1}) + n_i (o_j - o_{i+1}).
    """
    molecule, pairs = graph.molecule.numpy(), graph.pair_index.numpy()
    starts = np.cumsum([0, *np.bincount(molecule, minlength=graph.num_molecules)])
    begin = layout.ao_offsets(config.basis, graph.atomic_numbers.numpy())
    aos, first, last = np.diff(begin), begin[starts[molecule]], begin[starts[molecule + 1]]
    rest = aos * (last - begin[1:])  # elements of an atom's blocks with later atoms
    row, triangle = np.cumsum(rest) - rest - aos * (begin[1:] - first), aos * (aos + 1) // 2
    low, high, transposed = np.minimum(*pairs), np.maximum(*pairs), pairs[0] > pairs[1]
    labels = BlockLabels(
        basis=config.basis,
        parity=config.parity,
        triangle=torch.from_numpy((np.cumsum(triangle) - triangle)[graph.atom_order.numpy()]),
        block=torch.from_numpy(row[low] + aos[low] * (begin[high] - first[high])),
        as_stored=tuple(
            int(np.count_nonzero(~transposed[s.start : s.stop])) for s in graph.pair_segments
        ),
        **matrices,
    )
    if "hamiltonian" in matrices:
        elements = torch.from_numpy(_matrix_elements(graph, aos))
        graph = replace(graph, matrix_elements=elements)
    return BlockBatch(**vars(graph), labels=labels)


def _matrix_elements(graph: MolecularGraph, aos: np.ndarray) -> np.ndarray:
    """Matrix elements of every molecule in the blocks of its atoms and pairs, both triangles: [B].

    Args:
        aos: [N] orbitals of every atom.
    """
    molecule, (first, second) = graph.molecule.numpy(), graph.pair_index.numpy()
    count = graph.num_molecules
    onsite = np.bincount(molecule, aos**2, count)
    offsite = np.bincount(molecule[first], 2 * aos[first] * aos[second], count)
    return (onsite + offsite).astype(np.int64)
