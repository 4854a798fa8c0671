"""Exports the trunk as a torch.export program, which runs without this package.

Axes: N atoms, K = (lmax+1)^2 coefficients, C channels.
"""

import torch
from torch import Tensor, nn

from helm_scale.model.trunk import Trunk
from helm_scale.types import Geometry


class LayerFeatures(nn.Module):
    """Node features after every layer; weights are named as in the whole model, `trunk.*`."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, ...]:
        """[N, K, C] for every layer; arguments as in Geometry."""
        geometry = Geometry(positions, atomic_numbers, edge_index, batch, charge, spin)
        return tuple(self.trunk.states(geometry))


def export_program(network: LayerFeatures, example: Geometry) -> torch.export.ExportedProgram:
    """Trace the program for any number of atoms, edges (none too) and molecules.

    Positions keep their gradient.

    Args:
        example: molecules to trace with.
    """
    network(*example)  # makes the cached tables real tensors before they are traced
    atoms, edges, molecules = ({axis: torch.export.Dim.DYNAMIC} for axis in (0, 1, 0))
    sizes = (atoms, atoms, edges, atoms, molecules, molecules)
    program = torch.export.export(network, tuple(example), dynamic_shapes=sizes)
    program.example_inputs = None  # the golden molecules need not travel twice
    return program
