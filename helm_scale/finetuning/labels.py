"""Energies to learn from: shards, extended XYZ or an ASE database, divided; and the reference
energies of a training set.

The least-squares references of M molecules are unique only for compositions that the training
compositions span. Test molecules outside that span have no defined reference; they are left out of
the errors and named.

Axes: M molecules, Z atomic numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import FinetuneConfig
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.data.format.xyz import read_energies
from helm_scale.files import sha256
from helm_scale.losses.references import fit_atomic_energies
from helm_scale.types import Molecule

SHARES = (0.8, 0.1)  # training and validation, the rest is test, of a file that names no splits


@dataclass(frozen=True)
class Labelled:
    """Molecules with energies (Hartree), without matrices, by their part in finetuning.

    Attributes:
        train, validation: molecules to learn from and to choose the best step by (may be empty).
            tests: by name.
        atoms: energies of free neutral atoms that the data give, by atomic number, Hartree.
        method: how the labels were made, as far as the data say.
    """

    train: tuple[Molecule, ...]
    validation: tuple[Molecule, ...]
    tests: dict[str, tuple[Molecule, ...]]
    atoms: dict[int, float] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)

    def drawn(self, size: int, seed: int) -> "Labelled":
        """The same with a random training set of `size` molecules (0: all); a smaller one is part
        of a larger one."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        return replace(self, train=tuple(self.train[i] for i in order[: size or None]))

    def everything(self) -> list[Molecule]:
        """All molecules."""
        return [*self.train, *self.validation, *(m for part in self.tests.values() for m in part)]


@dataclass(frozen=True)
class EnergyLabels:
    """A training set with what it defines.

    Attributes:
        train, validation, tests: as in Labelled, without `skipped`, the keys of molecules of
            validation and tests that the references do not cover.
        atoms: elements whose energies are given. reference: [Z] float64 Hartree.
        scale: root mean square of the training energies minus references, Hartree.
    """

    train: tuple[Molecule, ...]
    validation: tuple[Molecule, ...]
    tests: dict[str, tuple[Molecule, ...]]
    skipped: tuple[str, ...]
    atoms: tuple[int, ...]
    reference: Tensor
    scale: float


def read(config: FinetuneConfig) -> Labelled:
    """Molecules that a config names: a folder of shards, an extended XYZ file or an ASE database.

    Raises:
        ValueError: no such data or split, a size larger than the training split, or a molecule
            without energy.
    """
    path = Path(config.data)
    parts, method = _of_shards(path, config) if path.is_dir() else _of_file(path)
    for name in (config.train_split, *config.test_splits):
        if not parts.get(name):
            raise ValueError(f"{path}: no split '{name}'; known: {', '.join(sorted(parts))}")
    if max(config.sizes, default=0) > len(parts[config.train_split]):
        raise ValueError(
            f"sizes: got {max(config.sizes)}, but split '{config.train_split}' of {path} has {len(parts[config.train_split])} molecules"
        )
    found = Labelled(
        tuple(parts[config.train_split]),
        tuple(parts.get(config.validation_split, [])),
        {name: tuple(parts[name]) for name in config.test_splits},
        {int(m.atomic_numbers[0]): _energy(m) for m in parts.get("isolated", [])},
        method,
    )
    for molecule in found.everything():
        _energy(molecule)
    return found


def gather_labels(labelled: Labelled) -> EnergyLabels:
    """Fit reference energies and set aside molecules for which they are undefined.

    Raises:
        ValueError: no molecule of a test is left.
    """
    counts = compositions(labelled.train)
    energies = torch.tensor([_energy(m) for m in labelled.train], dtype=torch.float64)
    reference, scale = fit_atomic_energies(torch.from_numpy(counts), energies, labelled.atoms)
    fitted = np.setdiff1d(np.arange(MAX_Z + 1), list(labelled.atoms))
    skipped: list[str] = []

    def defined(part: Sequence[Molecule]) -> tuple[Molecule, ...]:
        fine = _spanned(counts[:, fitted], compositions(part)[:, fitted])
        skipped.extend(m.key for m, known in zip(part, fine, strict=True) if not known)
        return tuple(m for m, known in zip(part, fine, strict=True) if known)

    tests = {name: defined(part) for name, part in labelled.tests.items()}
    for name, part in tests.items():
        if not part:
            raise ValueError(
                f"split '{name}': none of {len(labelled.tests[name])} molecules has a composition that the {len(labelled.train)}"
                " training molecules span, so no reference energy is defined; use a split with the elements of the training split"
            )
    validation = defined(labelled.validation)
    return EnergyLabels(
        labelled.train, validation, tests, tuple(skipped), tuple(labelled.atoms), reference, scale
    )


def compositions(molecules: Sequence[Molecule]) -> np.ndarray:
    """Atoms of every element: [M, Z] float64."""
    rows = [np.bincount(m.atomic_numbers, minlength=MAX_Z + 1) for m in molecules]
    return np.array(rows, dtype=np.float64).reshape(len(molecules), MAX_Z + 1)


def _of_shards(
    path: Path, config: FinetuneConfig
) -> tuple[dict[str, list[Molecule]], dict[str, Any]]:
    manifest = Manifest.load(path)
    reader = ShardReader(manifest)
    parts: dict[str, list[Molecule]] = {name: [] for name in manifest.split_names()}
    for name in {config.train_split, config.validation_split, *config.test_splits} & set(parts):
        for index in manifest.split(name):
            parts[name].append(
                replace(
                    reader.read(int(index)),
                    hamiltonian=None,
                    baseline_hamiltonian=None,
                    overlap=None,
                )
            )
    return parts, asdict(manifest.method)


def _of_file(path: Path) -> tuple[dict[str, list[Molecule]], dict[str, Any]]:
    """Molecules of a file by split; where no frame names one, they are divided at random, the same
    way every time."""
    molecules, splits = read_energies(path)
    free = [number for number, split in enumerate(splits) if split is None]
    if len(free) + splits.count("isolated") == len(splits):
        first, second = (round(len(free) * sum(SHARES[: k + 1])) for k in range(2))
        for place, number in enumerate(np.random.default_rng(0).permutation(free)):
            splits[number] = (
                "train" if place < first else "validation" if place < second else "test"
            )
    parts: dict[str, list[Molecule]] = {}
    for molecule, split in zip(molecules, splits, strict=True):
        parts.setdefault(split or "train", []).append(molecule)
    return parts, {"source": path.name, "sha256": sha256(path)}


def _energy(molecule: Molecule) -> float:
    if molecule.energy is None:
        raise ValueError(f"molecule '{molecule.key}': no energy; generate the shards with energies")
    return molecule.energy


def _spanned(known_MZ: np.ndarray, asked_MZ: np.ndarray) -> np.ndarray:
    """Whether every asked composition is a linear combination of known ones: [M] bool."""
    _, singular, basis = np.linalg.svd(known_MZ, full_matrices=False)
    basis = basis[singular > 1e-9 * max(singular.max(), 1e-9)]
    return np.abs(asked_MZ - asked_MZ @ basis.T @ basis).max(axis=1, initial=0.0) < 1e-6
