"""The trunk as a program that runs without this package: torch.export's, dynamic in atoms, edges
and molecules.

Axes: N atoms, K = (lmax+1)^2 coefficients, C channels.
"""

import torch
from torch import Tensor, nn

from helm_scale.model.trunk import Trunk
from helm_scale.types import Geometry


class States(nn.Module):
    """The trunk's features after every layer; its weights are named as in the whole model,
    `trunk.*`."""

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


def exported(states: States, example: Geometry) -> torch.export.ExportedProgram:
    """The program for any number of atoms, edges (none too) and molecules; positions keep their
    gradient.

    Args:
        example: molecules to trace with.
    """
    states(*example)  # makes the cached tables real tensors before they are traced
    atoms, edges, molecules = ({axis: torch.export.Dim.DYNAMIC} for axis in (0, 1, 0))
    program = torch.export.export(
        states, tuple(example), dynamic_shapes=(atoms, atoms, edges, atoms, molecules, molecules)
    )
    program.example_inputs = None
    return program
