"""Labels to learn from: shards, extended XYZ or an ASE database, in splits; reference per element.

The least-squares reference energies of M molecules are unique only for compositions that the
training compositions span. Test molecules outside that span have no defined reference; they are
left out of the errors and named.

Axes: M molecules, Z atomic numbers.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import FinetuneConfig
from helm_scale.data.format.atom_energies import read_atom_energies
from helm_scale.data.format.labels import LabelOptions, read_labels
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.files import sha256
from helm_scale.finetuning.targets import head_of, label_of, label_values, reference_features
from helm_scale.losses.references import fit_atomic_energies
from helm_scale.model.heads import Head
from helm_scale.model.heads.energy import ENERGY
from helm_scale.reading.domain import in_span
from helm_scale.types import Molecule, Quantity

_log = logging.getLogger(__name__)
SAME_ENERGY = 1e-6  # Hartree, of printed digits
SHARES = (0.8, 0.1)  # training and validation, the rest is test, of a file that names no splits
FEWEST = 5  # molecules that give one for training and one for the test
Splits = dict[str, list[Molecule]]


@dataclass(frozen=True, kw_only=True)
class LabelledSplits:
    """Molecules with the labels of one property, without matrices, by their use in finetuning.

    Attributes:
        train, validation: molecules to learn from and to choose the best step by (may be empty).
            tests: by name.
        head: of the property.
        atoms: energies of free neutral atoms that the data give, by atomic number, Hartree.
        method: how the labels were made, as far as the data say.
    """

    train: tuple[Molecule, ...]
    validation: tuple[Molecule, ...] = ()
    tests: dict[str, tuple[Molecule, ...]]
    head: Head = ENERGY
    atoms: dict[int, float] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)

    def draw(self, size: int, seed: int) -> Self:
        """The same with a random training set of `size` molecules; 0: all of them.

        A smaller one is part of a larger one.
        """
        order = np.random.default_rng(seed).permutation(len(self.train))
        return replace(self, train=tuple(self.train[i] for i in order[: size or None]))

    def all_molecules(self) -> list[Molecule]:
        """Molecules of all splits."""
        return [*self.train, *self.validation, *(m for test in self.tests.values() for m in test)]


@dataclass(frozen=True, kw_only=True)
class ReferencedSplits(LabelledSplits):
    """Splits with the reference per element that the training set defines.

    Attributes:
        skipped: keys of molecules of validation and tests that the reference does not cover; the
            splits are without them.
        reference: [Z] float64, in the unit of the property.
        scale: root mean square of the training labels minus their reference.
    """

    skipped: tuple[str, ...]
    reference: Tensor
    scale: float


def read(config: FinetuneConfig) -> LabelledSplits:
    """Molecules that a config names: a folder of shards, an extended XYZ file or an ASE database.

    Raises:
        ValueError: no such target, data or split, a size larger than the training split, or a
            molecule without label.
    """
    path, head = Path(config.data), head_of(config)
    splits, method = (
        _read_shards(path, config)
        if path.is_dir()
        else _read_file(path, head.quantity, label_options(config))
    )
    for name in (config.train_split, *config.test_splits):
        if not splits.get(name):
            raise ValueError(f"{path}: no split '{name}'; known: {', '.join(sorted(splits))}")
    train, largest = splits[config.train_split], max(config.sizes, default=0)
    if largest > len(train):
        raise ValueError(
            f"sizes: got {largest}, but split '{config.train_split}' of {path} has {len(train)}"
            " molecules"
        )
    labelled = LabelledSplits(
        train=tuple(train),
        validation=tuple(splits.get(config.validation_split, [])),
        tests={name: tuple(splits[name]) for name in config.test_splits},
        head=head,
        atoms=_free_atoms(splits.get("isolated", []), config, head),
        method=method,
    )
    for molecule in labelled.all_molecules():
        label_of(molecule, head.quantity)
    _report_unused_forces(labelled, config)
    return labelled


def _report_unused_forces(labelled: LabelledSplits, config: FinetuneConfig) -> None:
    """Say that forces are there which the target does not learn."""
    having = sum(molecule.forces is not None for molecule in labelled.train)
    if config.target == "energy" and having:
        _log.warning(
            "%s: %d of %d training molecules have forces, which target: energy does not learn;"
            " set target: forces",
            config.data,
            having,
            len(labelled.train),
        )


def _free_atoms(frames: Sequence[Molecule], config: FinetuneConfig, head: Head) -> dict[int, float]:
    """Energies of free atoms, Hartree, of the data's own frames and of a file of their own.

    Raises:
        ValueError: two energies of an element, or energies for another property.
    """
    if config.e0s is not None and head is not ENERGY:
        raise ValueError(f"e0s: got {config.e0s}, but target is {config.target}; leave it out")
    given = [] if config.e0s is None else read_atom_energies(config.e0s, label_options(config))
    atoms: dict[int, float] = {}
    for molecule in (*frames, *given):
        element, energy = (
            int(molecule.atomic_numbers[0]),
            float(label_of(molecule, ENERGY.quantity)),
        )
        if abs(atoms.setdefault(element, energy) - energy) > SAME_ENERGY:
            raise ValueError(
                f"e0s: {molecule.key}: {energy:.6f} Eh, but a free atom of {config.data} has"
                f" {atoms[element]:.6f} Eh; keep one"
            )
    return atoms


def label_options(config: FinetuneConfig) -> LabelOptions:
    """How a config has the labels of a file understood."""
    return LabelOptions(
        energy_unit=config.energy_unit,
        force_unit=config.force_unit,
        needs_forces=config.target == "forces",
        relative=config.energy_kind == "relative",
        ignore_cell=config.ignore_cell,
    )


def fit_reference(labelled: LabelledSplits) -> ReferencedSplits:
    """Fit the reference per element and set aside molecules for which it is undefined.

    Raises:
        ValueError: no molecule of a test is left.
    """
    head, skipped = labelled.head, list[str]()
    design = reference_features(labelled.train, head)
    values = label_values(labelled.train, head.quantity).flatten()
    reference, scale = fit_atomic_energies(torch.from_numpy(design), values, labelled.atoms)
    # Energies of free atoms are given, so molecules may hold any number of them
    fitted = np.setdiff1d(np.arange(MAX_Z + 1), list(labelled.atoms))

    def covered(molecules: Sequence[Molecule]) -> tuple[Molecule, ...]:
        asked = reference_features(molecules, head)
        # All components of a molecule's label have the same reference
        inside = in_span(design[:, fitted], asked[:, fitted])[:: head.quantity.components]
        skipped.extend(m.key for m, known in zip(molecules, inside, strict=True) if not known)
        return tuple(m for m, known in zip(molecules, inside, strict=True) if known)

    tests = {name: covered(molecules) for name, molecules in labelled.tests.items()}
    for name, molecules in tests.items():
        if not molecules:
            raise ValueError(
                f"split '{name}': none of {len(labelled.tests[name])} molecules has a composition"
                f" that the {len(labelled.train)} training molecules span, so no reference energy"
                " is defined; use a split with the elements of the training split"
            )
    left = replace(labelled, tests=tests, validation=covered(labelled.validation))
    shared = {f.name: getattr(left, f.name) for f in fields(left)}
    return ReferencedSplits(**shared, skipped=tuple(skipped), reference=reference, scale=scale)


def _read_shards(path: Path, config: FinetuneConfig) -> tuple[Splits, dict[str, Any]]:
    manifest = Manifest.load(path)
    reader = ShardReader(manifest)
    # Splits that are not asked for stay empty, but messages can name them
    splits: Splits = {name: [] for name in manifest.split_names()}
    asked = {config.train_split, config.validation_split, *config.test_splits}
    for name in asked & set(splits):
        for index in manifest.split(name):
            molecule = reader.read(int(index))
            splits[name].append(
                replace(molecule, hamiltonian=None, baseline_hamiltonian=None, overlap=None)
            )
    return splits, asdict(manifest.method)


def _read_file(
    path: Path, quantity: Quantity, options: LabelOptions
) -> tuple[Splits, dict[str, Any]]:
    """Molecules of a file by split.

    Where no frame names one, they are divided at random, the same way every time.
    """
    molecules, names = read_labels(path, quantity, options)
    free = [number for number, name in enumerate(names) if name is None]
    if len(free) + names.count("isolated") == len(names):
        if len(free) < FEWEST:
            raise ValueError(
                f"{path}: {len(free)} molecules are too few to be divided at random; give"
                f" {FEWEST}, or split=train, validation or test with every molecule"
            )
        first, second = (round(len(free) * sum(SHARES[: k + 1])) for k in range(2))
        for place, number in enumerate(np.random.default_rng(0).permutation(free)):
            after_train = "validation" if place < second else "test"
            names[number] = "train" if place < first else after_train
    splits: Splits = {}
    for molecule, name in zip(molecules, names, strict=True):
        splits.setdefault(name or "train", []).append(molecule)
    return splits, {"source": path.name, "sha256": sha256(path)}
