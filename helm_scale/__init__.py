"""Distributed pretraining of backbones on Kohn-Sham Hamiltonians.

model = helm_scale.load("runs/pretrain")  # a run folder, a checkpoint or a bundle
hamiltonian = model.hamiltonian(atoms)  # [nao, nao], Hartree; atoms are ASE Atoms
energy = model.energy(atoms)  # Hartree, of the predicted density
solver = model.solver(atoms)  # PySCF, in the method of the labels
solver.kernel(dm0=model.initial_guess(solver.mol))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helm_scale.api import EnergyCalculator, HamiltonianModel, load
    from helm_scale.export.backbone import Backbone

__version__ = "0.1.0"
__all__ = ["Backbone", "EnergyCalculator", "HamiltonianModel", "load"]
_HOMES = {
    "Backbone": "helm_scale.export.backbone",
    "EnergyCalculator": "helm_scale.api",
    "HamiltonianModel": "helm_scale.api",
    "load": "helm_scale.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that `import helm_scale` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"helm_scale has no '{name}'; it has {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)
