"""A developer of potentials: features, a readout of their own, a finetuned model, MD.

Runs in a folder that holds a bundle, `backbone`, and nothing else, with the installed package.
"""

import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from helm_scale import Backbone, EnergyCalculator

STRENGTHS, LENGTHS = (25.0, 25.0, 5.0), (0.96, 0.96, 1.52)  # springs, eV/A^2 and A


def spring_water(seed: int) -> Atoms:
    """Water at a random geometry, with the energy and the forces of three springs."""
    x = np.array([[0.0, 0.0, 0.0], [0.0, 0.76, -0.59], [0.0, -0.76, -0.59]])
    x += np.random.default_rng(seed).normal(scale=0.05, size=(3, 3))
    energy, forces = -2078.0, np.zeros((3, 3))
    for (i, j), strength, length in zip(((0, 1), (0, 2), (1, 2)), STRENGTHS, LENGTHS, strict=True):
        distance = float(np.linalg.norm(x[j] - x[i]))
        pull = 2 * strength * (distance - length) * (x[j] - x[i]) / distance
        energy += strength * (distance - length) ** 2
        forces[i] += pull
        forces[j] -= pull
    frame = Atoms("OHH", x, info={"REF_energy": energy})
    frame.arrays["REF_forces"] = forces
    return frame


def invariants(features_NKC: torch.Tensor) -> torch.Tensor:
    """Norms of all degrees and channels, summed over the atoms."""
    degrees = range(round(features_NKC.shape[1] ** 0.5))
    norms = [features_NKC[:, i * i : (i + 1) ** 2].norm(dim=1).sum(dim=0) for i in degrees]
    return torch.cat(norms).double()


def readout_on_features(frames: list[Atoms]) -> None:
    """A ridge regression on invariants that are computed once beats the mean energy."""
    backbone = Backbone.from_pretrained("backbone").requires_grad_(False)
    pooled = torch.stack([invariants(x) for x in backbone.features_of(frames)])
    energies = torch.tensor([frame.info["REF_energy"] for frame in frames], dtype=torch.float64)
    inputs, target = pooled, energies - energies[:20].mean()
    inputs = (inputs - inputs[:20].mean(dim=0)) / (inputs[:20].std(dim=0) + 1e-9)
    normal = inputs[:20].T @ inputs[:20] + 1e-3 * torch.eye(inputs.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(normal, inputs[:20].T @ target[:20])
    error = (inputs @ weight - target)[20:].abs().mean()
    assert error < 0.7 * target[20:].abs().mean(), error
    print(f"readout: {1000 * error:.0f} meV")


def main() -> None:
    frames = [spring_water(seed) for seed in range(30)]
    ase.io.write("energies.xyz", frames, format="extxyz")
    readout_on_features(frames)
    command = [str(Path(sys.executable).with_name("helm-scale")), "finetune"]
    options = "--source backbone --data energies.xyz --out tuned --target forces --threads 1"
    choices = ["--modes", "[finetuned]", "--sizes", "[24]", "--seeds", "[0]", "--steps", "80"]
    subprocess.run([*command, *options.split(), *choices], check=True, stdout=subprocess.DEVNULL)
    calculator = EnergyCalculator("tuned/finetuned")
    energies, forces = zip(*calculator.evaluate(frames), strict=True)
    assert np.abs(np.array(energies) + 2078).max() < 2 and forces[0].shape == (3, 3)
    atoms = frames[0].copy()
    atoms.calc = calculator
    assert BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
    found = atoms.get_all_distances()[np.triu_indices(3, 1)]
    assert np.abs(found - LENGTHS).max() < 0.1, found
    thermalize_momenta(atoms, 300 * units.kB, rng=np.random.default_rng(0))
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, 0.5 * units.fs).run(200)
    drift = abs(atoms.get_total_energy() - before)
    assert drift < 0.01, drift
    print(f"relaxed and moved for 100 fs; the energy drifted by {1000 * drift:.2f} meV")


if __name__ == "__main__":
    main()
