"""The recipe of a new head, as a file of helm_scale/model/heads/: the HOMO-LUMO gap of a molecule.

Its line in the table (helm_scale/model/heads/__init__.py) is GAP beside ENERGY and DIPOLE; then
`helm-scale finetune --target gap` reads `REF_gap` or `gap`, in eV, from extended XYZ.
"""

from torch import Tensor

from helm_scale.model.heads.head import Head, Irreps, sum_over_atoms
from helm_scale.types import GraphBatch, Quantity
from helm_scale.units import HARTREE_IN_EV, HARTREE_IN_MEV


def mean_over_atoms(irreps: Irreps, batch: GraphBatch, cutoff: float) -> Tensor:
    """Mean of one scalar per atom: [B]. A gap does not grow with the molecule."""
    scalar = irreps[0][:, 0, 0]
    return sum_over_atoms(scalar, batch) / batch.molecule.bincount()


GAP = Head(
    quantity=Quantity(
        name="gap",
        unit="Hartree",
        file_unit="eV",
        in_file_unit=HARTREE_IN_EV,
        report_unit="meV",
        in_report_unit=HARTREE_IN_MEV,
    ),
    irreps={0: 1},
    combine=mean_over_atoms,
    reference="mean",
)
