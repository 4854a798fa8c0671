"""Dipole moment from charge that flows along edges, the molecule's charge and a vector per atom.

Charge only flows from one atom to another, as in the bond charge increments of force fields, so
that no term changes the molecule's charge: the dipole of a neutral molecule does not depend on the
origin, and those of neutral molecules beyond the cutoff of each other add up. That of an ion is
taken about its centre of nuclear charge, in labels, too (dft/molecule.py).

Axes: N atoms, B molecules, E edges.
"""

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.conventions import ao_order
from helm_scale.model.heads.head import Head, Irreps, sum_over_atoms
from helm_scale.model.radial import envelope
from helm_scale.types import GraphBatch, Quantity
from helm_scale.units import E_ANGSTROM_IN_DEBYE

# Place of x, y, z among m = -1, 0, 1. PySCF writes a p shell as x, y, z, so its order undoes ours.
XYZ = torch.from_numpy(np.argsort(ao_order("pyscf", [(1,)])[0]))


def dipole_moment(irreps: Irreps, batch: GraphBatch, cutoff: float) -> Tensor:
    """Dipole moments [B, 3], x, y, z, in the unit of length times that of the irreps.

    mu = sum_edges f(r_ij) (c_i - c_j) (r_i - r_j) + Q sum_i b_i (r_i - r_0) + sum_i v_i

    with scalars c and b and a vector v of every atom, the envelope f, the molecule's charge Q and
    its centre of nuclear charge r_0.
    """
    flow, excess = irreps[0].squeeze(1).unbind(1)
    first, second = batch.edge_index
    edge = batch.positions[first] - batch.positions[second]
    charge = envelope(edge.norm(dim=-1), cutoff) * (flow[first] - flow[second])
    place = batch.positions - centre_of_nuclear_charge(batch)[batch.molecule]
    ion = batch.charge[batch.molecule] * excess
    moment = irreps[1][:, XYZ.to(flow.device), 0] + ion.unsqueeze(1) * place
    # Edges are unordered: exchanging the ends changes both signs, so one of the two suffices.
    moment = moment.index_add(0, first, charge.unsqueeze(1) * edge)
    return sum_over_atoms(moment, batch)


def centre_of_nuclear_charge(batch: GraphBatch) -> Tensor:
    """Mean position of the atoms, weighted with their atomic numbers: [B, 3], Angstrom."""
    weight = batch.atomic_numbers.to(batch.positions).unsqueeze(1)
    return sum_over_atoms(weight * batch.positions, batch) / sum_over_atoms(weight, batch)


DIPOLE = Head(
    quantity=Quantity(
        name="dipole",
        shape=(3,),
        unit="e*Angstrom",
        file_unit="e*Angstrom",
        report_unit="mD",
        in_report_unit=1000.0 * E_ANGSTROM_IN_DEBYE,
    ),
    irreps={0: 2, 1: 1},
    combine=dipole_moment,
)
