"""Flow matching on the Hamiltonian (QHFlow2, arXiv:2602.16897): X_t = (1-t) X_0 + t X_1, the
network predicts X_1.

X_1 is the target over the output scale, X_0 a draw of the prior. Sampling takes K Euler steps of v
= (X_1 - X_t)/(1-t); the last ends at the prediction itself, so K = 1 is one pass. With the prior
"zero" X_t = 0 and t = 0 always: regression by the same network. A draw depends on the molecule's
key and the batch's draw number alone, not on its neighbours, ranks or device.

Packing is an isometry, so the Gaussian orthogonal ensemble is one and the same normal distribution
of every component.

Axes: B molecules, n blocks, S packed components of a block, M = 2*L+1, R rows of degree L.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from helm_scale.basis.layout import BlockLayout, offsite_layout, onsite_layout
from helm_scale.config import ModelConfig
from helm_scale.irreps.wigner import edge_frames
from helm_scale.model.conditioning import FlowPoint
from helm_scale.types import GraphBatch

TIMES = (0.01, 0.99)  # between which training times are uniform
# Standard deviation of a packed component: matrix elements off the diagonal then have deviation 1.
WIDTH = 2**0.5


class _Blocks(NamedTuple):
    """The on-site or off-site blocks of a batch: molecule of each [n], layout and length of every
    run."""

    name: str
    molecule: Tensor
    kinds: list[BlockLayout]
    counts: list[int]

    def sizes(self) -> Tensor:
        """Packed components of every block, [n]."""
        sizes, counts = (
            torch.tensor(numbers, dtype=torch.int64)
            for numbers in ([kind.size for kind in self.kinds], self.counts)
        )
        return sizes.repeat_interleave(counts)


def prior_point(config: ModelConfig, batch: GraphBatch) -> FlowPoint:
    """A draw of the prior at time 0; invariant under rotations, and of symmetric matrices.

    Priors: "irreps" (independent Gaussians, every irrep of the same expected norm), "goe" (Gaussian
    orthogonal ensemble), "tensor" (harmonics of one random direction per block times a random
    radius per irrep), "zero".
    """
    onsite, offsite = (
        _drawn(config, batch, blocks).to(batch.positions.device)
        for blocks in _blocks(config, batch)
    )
    return FlowPoint(onsite.new_zeros(batch.num_molecules), onsite, offsite)


def training_point(
    config: ModelConfig, batch: GraphBatch, onsite: Tensor, offsite: Tensor
) -> FlowPoint:
    """A point between the prior's draw and X_1 (onsite, offsite), at a random time for every
    molecule."""
    if batch.positions.is_meta:  # a rehearsal, which asks for shapes alone
        return FlowPoint(
            onsite.new_empty(batch.num_molecules),
            torch.empty_like(onsite),
            torch.empty_like(offsite),
        )
    first = prior_point(config, batch)
    if config.prior == "zero":
        return first
    low, high = TIMES
    draws = [
        torch.rand(1, generator=_generator(batch, key, "time"), dtype=torch.float64)
        for key in batch.keys
    ]
    time = low + (high - low) * torch.cat([torch.zeros(0, dtype=torch.float64), *draws])
    path = []
    for blocks, begin, end in zip(
        _blocks(config, batch), (first.onsite, first.offsite), (onsite, offsite), strict=True
    ):
        t = time[blocks.molecule].repeat_interleave(blocks.sizes()).to(begin)
        path.append((1 - t) * begin + t * end)
    return FlowPoint(time.to(first.time), *path)


def euler(point: FlowPoint, onsite: Tensor, offsite: Tensor, length: float) -> FlowPoint:
    """A step of this length in time towards the predicted end (onsite, offsite); all molecules are
    at one time."""
    share = length / (1 - point.time.max()) if len(point.time) else 0.0
    return FlowPoint(
        point.time + length,
        point.onsite + share * (onsite - point.onsite),
        point.offsite + share * (offsite - point.offsite),
    )


def _blocks(config: ModelConfig, batch: GraphBatch) -> tuple[_Blocks, _Blocks]:
    """On-site and off-site blocks, in the order of the targets."""
    near = [onsite_layout(config.basis, s.first, config.parity) for s in batch.atom_segments]
    far = [offsite_layout(config.basis, s.first, s.second) for s in batch.pair_segments]
    molecule, first = batch.molecule.cpu(), batch.pair_index[0].cpu()
    return (
        _Blocks(
            "onsite",
            molecule[batch.atom_order.cpu()],
            near,
            [s.count for s in batch.atom_segments],
        ),
        _Blocks("offsite", molecule[first], far, [s.count for s in batch.pair_segments]),
    )


def _drawn(config: ModelConfig, batch: GraphBatch, blocks: _Blocks) -> Tensor:
    """X_0 of the blocks, flat, in the dtype of the model."""
    dtype, sizes = getattr(torch, config.dtype), blocks.sizes()
    if config.prior == "zero":
        return torch.zeros(int(sizes.sum()), dtype=dtype)
    normals = _normals(batch, blocks.name, blocks.molecule, sizes)
    if config.prior == "goe":
        return (WIDTH * normals).to(dtype)
    directions = None
    if config.prior == "tensor":
        vectors = _normals(
            batch, f"{blocks.name} direction", blocks.molecule, torch.full_like(sizes, 3)
        ).view(-1, 3)
        directions = (
            edge_frames(vectors, config.lmax, 0, torch.float64)[0].sum(1).split(blocks.counts)
        )
    runs = (
        normals.split(
            [count * kind.size for count, kind in zip(blocks.counts, blocks.kinds, strict=True)]
        )
        if blocks.kinds
        else ()
    )
    shaped = [
        _shaped(run.view(-1, kind.size), kind, directions[place] if directions else None).flatten()
        for place, (run, kind) in enumerate(zip(runs, blocks.kinds, strict=True))
    ]
    return (WIDTH * torch.cat([normals.new_zeros(0), *shaped])).to(dtype)


def _shaped(normals_nS: Tensor, kind: BlockLayout, harmonics_nK: Tensor | None) -> Tensor:
    """Irreps of expected norm 1: normal in every component, or a normal radius times the harmonics
    of the block's direction."""
    parts = []
    for (degree, rows), part in zip(
        kind.rows.items(),
        normals_nS.split([(2 * L + 1) * len(r) for L, r in kind.rows.items()], dim=1),
        strict=True,
    ):
        w_nMR = part.unflatten(1, (2 * degree + 1, len(rows)))
        if harmonics_nK is None:
            w_nMR = w_nMR / (2 * degree + 1) ** 0.5
        else:
            w_nMR = w_nMR[:, :1] * harmonics_nK[:, degree * degree : (degree + 1) ** 2, None]
        parts.append(w_nMR.flatten(1))
    return torch.cat(parts, dim=1)


def _normals(batch: GraphBatch, purpose: str, molecule: Tensor, sizes: Tensor) -> Tensor:
    """Normal numbers, sizes[i] for block i, drawn molecule by molecule: flat float64."""
    counts = torch.zeros(batch.num_molecules, dtype=torch.int64).index_add(0, molecule, sizes)
    drawn = [
        torch.randn(count, generator=_generator(batch, key, purpose), dtype=torch.float64)
        for key, count in zip(batch.keys, counts.tolist(), strict=True)
    ]
    order = torch.argsort(molecule.repeat_interleave(sizes), stable=True)
    numbers = torch.empty(len(order), dtype=torch.float64)
    numbers[order] = torch.cat([numbers[:0], *drawn])
    return numbers


def _generator(batch: GraphBatch, key: str, purpose: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{purpose}/{batch.noise_seed}/{key}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
