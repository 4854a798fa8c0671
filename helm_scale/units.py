"""Units: lengths are in Angstrom and energies in Hartree unless a name says otherwise.

The Bohr radius is PySCF 2.14's (CODATA 2010), so that geometries agree to the last bit; the eV is
CODATA 2018's.
"""

BOHR_IN_ANGSTROM = 0.52917721092
HARTREE_IN_EV = 27.211386245988
HARTREE_IN_MEV = 1000.0 * HARTREE_IN_EV
MICROHARTREE = 1.0e-6
E_ANGSTROM_IN_DEBYE = 4.80320471
