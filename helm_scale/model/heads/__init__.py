"""Heads: what is predicted from node states. A new property of molecules is one file and one line.

The table holds properties of whole molecules, which `helm-scale finetune --target NAME` learns.
Blocks of a Hamiltonian have irreps of their own for every pair of elements; Helm builds their heads
(hamiltonian.py).
"""

from helm_scale.model.heads.dipole import DIPOLE
from helm_scale.model.heads.energy import ENERGY
from helm_scale.model.heads.head import Head

HEADS: dict[str, Head] = {head.quantity.name: head for head in (ENERGY, DIPOLE)}
