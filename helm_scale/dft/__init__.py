"""Everything that runs PySCF: labels, baselines, energies."""
