"""Units: lengths are in Angstrom and energies in Hartree unless a name says otherwise.

Values: CODATA 2018, the set that PySCF 2.14 uses.
"""

BOHR_IN_ANGSTROM = 0.52917721092
HARTREE_IN_EV = 27.211386245988
HARTREE_IN_MEV = 1000.0 * HARTREE_IN_EV
MICROHARTREE = 1.0e-6
