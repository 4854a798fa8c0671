"""Total energy: the sum of one scalar per atom (HELM, arXiv:2510.00224) and of atomic energies."""

from torch import Tensor

from helm_scale.model.heads.head import Head, Irreps, sum_over_atoms
from helm_scale.types import GraphBatch, Quantity
from helm_scale.units import HARTREE_IN_EV, HARTREE_IN_MEV


def total_energy(irreps: Irreps, batch: GraphBatch, cutoff: float) -> Tensor:
    """E = sum_i e_i: [B]. Energies of molecules beyond the cutoff of each other add up."""
    return sum_over_atoms(irreps[0][:, 0, 0], batch)


ENERGY = Head(
    quantity=Quantity(
        name="energy",
        unit="Hartree",
        file_unit="eV",
        in_file_unit=HARTREE_IN_EV,
        report_unit="meV",
        in_report_unit=HARTREE_IN_MEV,
    ),
    irreps={0: 1},
    combine=total_energy,
    reference="sum",
)
