"""Everything that runs PySCF: labels, baselines, energies."""

from helm_scale.extras import needs

with needs("dft"):
    import pyscf  # noqa: F401
