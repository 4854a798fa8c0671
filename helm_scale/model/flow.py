"""Flow matching on the Hamiltonian (QHFlow2, arXiv:2602.16897): X_t = (1-t) X_0 + t X_1.

The network predicts X_1, the target over the output scale, from X_t; X_0 is noise of the prior.
Sampling takes K Euler steps of v = (X_1 - X_t)/(1-t); the last ends at the prediction itself, so
K = 1 is one pass. With the prior "zero" X_t = 0 and t = 0 always: regression by the same network.
Noise depends on the molecule's key and the batch's noise_seed alone, not on its neighbours, ranks
or device.

Packing is an isometry, so the Gaussian orthogonal ensemble is one and the same normal distribution
of every component.

Axes: B molecules, n blocks, S packed components of a block, M = 2*L+1, R rows of degree L.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from helm_scale.basis.layout import BlockLayout, offsite_layout, onsite_layout
from helm_scale.config import ModelConfig
from helm_scale.irreps.wigner import edge_frames
from helm_scale.model.conditioning import FlowPoint
from helm_scale.types import GraphBatch

# Training times are uniform between these; at t = 1 the network would be given the label itself.
TIMES = (0.01, 0.99)
# Standard deviation of a packed component: matrix elements off the diagonal then have deviation 1.
WIDTH = 2**0.5


class BatchBlocks(NamedTuple):
    """The on-site or the off-site blocks of a batch.

    Attributes:
        name: "onsite" or "offsite". molecule: [n] of every block.
        layouts, counts: of every run of blocks alike.
    """

    name: str
    molecule: Tensor
    layouts: list[BlockLayout]
    counts: list[int]

    def sizes(self) -> Tensor:
        """Packed components of every block: [n]."""
        sizes = torch.tensor([layout.size for layout in self.layouts], dtype=torch.int64)
        return sizes.repeat_interleave(torch.tensor(self.counts, dtype=torch.int64))


def prior_point(config: ModelConfig, batch: GraphBatch) -> FlowPoint:
    """Noise of the prior at time 0: symmetric matrices, as likely as when they are turned.

    Priors: "irreps" (independent Gaussians, every irrep of the same expected norm), "goe" (Gaussian
    orthogonal ensemble), "tensor" (harmonics of one random direction per block times a random
    radius per irrep), "zero".
    """
    # Numbers are made on the CPU, so that no result hangs on the device.
    onsite, offsite = (
        _noise(config, batch, blocks).to(batch.positions.device)
        for blocks in blocks_of(config, batch)
    )
    return FlowPoint(onsite.new_zeros(batch.num_molecules), onsite, offsite)


def training_point(
    config: ModelConfig, batch: GraphBatch, onsite: Tensor, offsite: Tensor
) -> FlowPoint:
    """A point between noise and X_1 (onsite, offsite), at a random time for every molecule."""
    if batch.positions.is_meta:  # a rehearsal, which asks for shapes alone
        return FlowPoint(
            onsite.new_empty(batch.num_molecules),
            torch.empty_like(onsite),
            torch.empty_like(offsite),
        )
    start = prior_point(config, batch)
    if config.prior == "zero":
        return start
    low, high = TIMES
    uniform = [
        torch.rand(1, generator=_generator(batch, key, "time"), dtype=torch.float64)
        for key in batch.keys
    ]
    time = low + (high - low) * torch.cat([torch.zeros(0, dtype=torch.float64), *uniform])
    path = []
    ends = (start.onsite, onsite), (start.offsite, offsite)
    for blocks, (x_0, x_1) in zip(blocks_of(config, batch), ends, strict=True):
        t = time[blocks.molecule].repeat_interleave(blocks.sizes()).to(x_0)
        path.append((1 - t) * x_0 + t * x_1)
    return FlowPoint(time.to(start.time), *path)


def euler(point: FlowPoint, onsite: Tensor, offsite: Tensor, length: float) -> FlowPoint:
    """A step of this length in time towards the predicted end (onsite, offsite).

    All molecules are at one time.
    """
    share = length / (1 - point.time.max()) if len(point.time) else 0.0
    return FlowPoint(
        point.time + length,
        point.onsite + share * (onsite - point.onsite),
        point.offsite + share * (offsite - point.offsite),
    )


def blocks_of(config: ModelConfig, batch: GraphBatch) -> tuple[BatchBlocks, BatchBlocks]:
    """On-site and off-site blocks, in the order of the targets."""
    near = [onsite_layout(config.basis, s.first, config.parity) for s in batch.atom_segments]
    far = [offsite_layout(config.basis, s.first, s.second) for s in batch.pair_segments]
    # On the CPU, where the generators are; these are small tensors.
    molecule, first_atom = batch.molecule.cpu(), batch.pair_index[0].cpu()
    of_atom, atoms = molecule[batch.atom_order.cpu()], [s.count for s in batch.atom_segments]
    of_pair, pairs = molecule[first_atom], [s.count for s in batch.pair_segments]
    return (
        BatchBlocks("onsite", of_atom, near, atoms),
        BatchBlocks("offsite", of_pair, far, pairs),
    )


def _noise(config: ModelConfig, batch: GraphBatch, blocks: BatchBlocks) -> Tensor:
    """X_0 of the blocks, flat, in the dtype of the model."""
    dtype, sizes = getattr(torch, config.dtype), blocks.sizes()
    if config.prior == "zero":
        return torch.zeros(int(sizes.sum()), dtype=dtype)
    normals = _normals(batch, blocks.name, blocks.molecule, sizes)
    if config.prior == "goe":
        return (WIDTH * normals).to(dtype)
    harmonics: Sequence[Tensor | None] = [None] * len(blocks.counts)
    if config.prior == "tensor":
        harmonics = _random_harmonics(config, batch, blocks)
    run_sizes = [n * layout.size for n, layout in zip(blocks.counts, blocks.layouts, strict=True)]
    runs = normals.split(run_sizes) if run_sizes else ()
    shaped = [
        _of_unit_norm(run.view(-1, layout.size), layout, of_run).flatten()
        for run, layout, of_run in zip(runs, blocks.layouts, harmonics, strict=True)
    ]
    return (WIDTH * torch.cat([normals.new_zeros(0), *shaped])).to(dtype)


def _random_harmonics(
    config: ModelConfig, batch: GraphBatch, blocks: BatchBlocks
) -> Sequence[Tensor | None]:
    """Spherical harmonics [n, K] of one random direction for every block, run after run."""
    three = torch.full_like(blocks.molecule, 3)
    vectors = _normals(batch, f"{blocks.name} direction", blocks.molecule, three).view(-1, 3)
    # Rows of order 0 of the frame in which a vector lies on the axis are its harmonics.
    return edge_frames(vectors, config.lmax, 0, torch.float64)[0].sum(1).split(blocks.counts)


def _of_unit_norm(normals_nS: Tensor, layout: BlockLayout, harmonics_nK: Tensor | None) -> Tensor:
    """Irreps of expected norm 1: [n, S].

    Normal in every component, or a normal radius times the harmonics of the block's direction.
    """
    sizes = [(2 * degree + 1) * len(rows) for degree, rows in layout.rows.items()]
    irreps = []
    for (degree, rows), normals in zip(
        layout.rows.items(), normals_nS.split(sizes, dim=1), strict=True
    ):
        w_nMR = normals.unflatten(1, (2 * degree + 1, len(rows)))
        if harmonics_nK is None:
            w_nMR = w_nMR / (2 * degree + 1) ** 0.5
        else:
            # The first component is the radius; the others were drawn in vain, so that both priors
            # read one stream of numbers.
            w_nMR = w_nMR[:, :1] * harmonics_nK[:, degree * degree : (degree + 1) ** 2, None]
        irreps.append(w_nMR.flatten(1))
    return torch.cat(irreps, dim=1)


def _normals(batch: GraphBatch, purpose: str, molecule: Tensor, sizes: Tensor) -> Tensor:
    """Normal numbers, sizes[i] for block i, drawn molecule by molecule: flat float64."""
    counts = torch.zeros(batch.num_molecules, dtype=torch.int64).index_add(0, molecule, sizes)
    of_molecules = [
        torch.randn(count, generator=_generator(batch, key, purpose), dtype=torch.float64)
        for key, count in zip(batch.keys, counts.tolist(), strict=True)
    ]
    # Numbers were drawn molecule by molecule, and blocks lie segment by segment.
    order = torch.argsort(molecule.repeat_interleave(sizes), stable=True)
    numbers = torch.empty(len(order), dtype=torch.float64)
    numbers[order] = torch.cat([numbers[:0], *of_molecules])
    return numbers


def _generator(batch: GraphBatch, key: str, purpose: str) -> torch.Generator:
    """Random numbers of one molecule, seeded by a hash of its key."""
    # Not Python's hash(), which differs from process to process; 7 bytes fit a signed seed.
    digest = hashlib.blake2b(f"{purpose}/{batch.noise_seed}/{key}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
