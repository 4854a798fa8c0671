"""From predicted Hamiltonians to errors of matrices, orbitals and energies."""
