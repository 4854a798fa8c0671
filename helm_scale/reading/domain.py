"""What a model was trained on, and what of a molecule lies outside of it.

An element that training never showed has an untrained embedding, so its molecules are refused. A
charge, multiplicity, size or composition that training did not show is extrapolated, which is said
once for each.

Axes: M molecules, Z atomic numbers.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from helm_scale.basis.elements import ELEMENTS, MAX_Z, atomic_number, symbol
from helm_scale.types import Molecule

_log = logging.getLogger(__name__)
DOMAIN = "training_domain"  # its key in the record of a model
_TERM = re.compile(r"([A-Z][a-z]?)(\d*)")


@dataclass(frozen=True, kw_only=True)
class TrainingDomain:
    """What the training molecules of a model have in common.

    Attributes:
        molecules: their number. elements: their atoms by symbol. atoms: of the smallest and the
            largest.
        charges, multiplicities: molecules by charge and by 2S+1; None: unknown.
        compositions: formulae of training molecules (and of free atoms whose energies were given)
            of which all other compositions are linear combinations; None: unknown. Outside their
            span no energy per element is defined.
    """

    molecules: int
    elements: dict[str, int]
    atoms: tuple[int, int]
    charges: dict[int, int] | None = None
    multiplicities: dict[int, int] | None = None
    compositions: tuple[str, ...] | None = None

    @classmethod
    def of(cls, molecules: Iterable[Molecule], free_atoms: Iterable[int] = ()) -> "TrainingDomain":
        """Count over molecules, which may come one by one.

        Args:
            free_atoms: atomic numbers whose energies are given, so that any number of them is
                within the span.
        Raises:
            ValueError: no molecules.
        """
        atoms, charges, multiplicities = Counter[int](), Counter[int](), Counter[int]()
        formulae: dict[bytes, None] = {}
        total = np.zeros(MAX_Z + 1, dtype=np.int64)
        for molecule in molecules:
            counts = _counts(molecule.atomic_numbers)
            formulae[counts.tobytes()] = None
            total += counts
            atoms[len(molecule.atomic_numbers)] += 1
            charges[int(molecule.charge)] += 1
            multiplicities[int(molecule.spin_multiplicity)] += 1
        if not atoms:
            raise ValueError("no training molecules, so nothing to learn from")
        rows = np.array([np.frombuffer(row, dtype=np.int64) for row in formulae])
        free = np.eye(MAX_Z + 1, dtype=np.int64)[sorted(free_atoms)]
        return cls(
            molecules=sum(atoms.values()),
            elements={symbol(int(z)): int(total[z]) for z in np.flatnonzero(total)},
            atoms=(min(atoms), max(atoms)),
            charges=dict(sorted(charges.items())),
            multiplicities=dict(sorted(multiplicities.items())),
            compositions=tuple(map(_formula, _spanning(np.concatenate([free, rows])))),
        )

    @classmethod
    def read(cls, record: Mapping[str, Any], where: str) -> "TrainingDomain | None":
        """The domain that the record of a model holds; None for one that has none.

        Raises:
            ValueError: damaged; names `where`.
        """
        content = record.get(DOMAIN)
        if content is None:
            return None
        try:
            smallest, largest = map(int, content["atoms"])
            compositions = content["compositions"]
            domain = cls(
                molecules=int(content["molecules"]),
                elements={str(name): int(n) for name, n in content["elements"].items()},
                atoms=(smallest, largest),
                charges=_by_number(content["charges"]),
                multiplicities=_by_number(content["multiplicities"]),
                compositions=None if compositions is None else tuple(compositions),
            )
            for name in (*domain.elements, *(domain.compositions or ())):
                _parse(name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{where}: {DOMAIN}: damaged ({error!r}); copy the folder again"
            ) from None
        return domain

    def __or__(self, other: "TrainingDomain") -> "TrainingDomain":
        """The domain of a model that was trained on both, one after the other."""
        formulae = [*(self.compositions or ()), *(other.compositions or ())]
        elements = Counter(self.elements) + Counter(other.elements)
        return TrainingDomain(
            molecules=self.molecules + other.molecules,
            elements=dict(sorted(elements.items(), key=lambda item: atomic_number(item[0]))),
            atoms=(min(self.atoms[0], other.atoms[0]), max(self.atoms[1], other.atoms[1])),
            charges=_both(self.charges, other.charges),
            multiplicities=_both(self.multiplicities, other.multiplicities),
            compositions=None
            if self.compositions is None or other.compositions is None
            else tuple(map(_formula, _spanning(np.array([_parse(name) for name in formulae])))),
        )

    def record(self) -> dict[str, Any]:
        """The JSON that `read` takes."""
        return {
            "molecules": self.molecules,
            "elements": self.elements,
            "atoms": list(self.atoms),
            "charges": _by_text(self.charges),
            "multiplicities": _by_text(self.multiplicities),
            "compositions": None if self.compositions is None else list(self.compositions),
        }

    def unseen_elements(self, molecule: Molecule) -> list[str]:
        """Elements of a molecule that no training molecule has."""
        names = [_name(z) for z in np.unique(molecule.atomic_numbers)]
        return [name for name in names if name not in self.elements]

    def extrapolated(self, molecule: Molecule) -> dict[str, str]:
        """What of a molecule training did not show, as {what: what training showed}."""
        found, (smallest, largest) = dict[str, str](), self.atoms
        sizes = f"{smallest} to {largest} atoms"
        size, charge = len(molecule.atomic_numbers), int(molecule.charge)
        if size > largest:
            found[f"more than {largest} atoms"] = sizes
        if size < smallest:
            found[f"fewer than {smallest} atoms"] = sizes
        if self.charges is not None and charge not in self.charges:
            found[f"charge {charge:+d}"] = "charges " + _listed(self.charges, "{:+d}")
        multiplicity = int(molecule.spin_multiplicity)
        if self.multiplicities is not None and multiplicity not in self.multiplicities:
            found[f"multiplicity {multiplicity}"] = "multiplicities " + _listed(
                self.multiplicities, "{}"
            )
        if not self.unseen_elements(molecule) and not self._spans(molecule.atomic_numbers):
            found["a composition that is no combination of theirs"] = "compositions " + ", ".join(
                self.compositions or ()
            )
        return found

    def _spans(self, atomic_numbers: np.ndarray) -> bool:
        """Whether the composition is a linear combination of those of training."""
        # Where there is a composition per element, there is nothing outside
        if self.compositions is None or len(self.compositions) >= len(self.elements):
            return True
        asked = _counts(atomic_numbers)[None].astype(np.float64)
        return bool(_within(self._span, asked)[0])

    @cached_property
    def _span(self) -> np.ndarray:
        """Orthonormal rows that span the compositions."""
        formulae = [_parse(formula) for formula in self.compositions or ()]
        return _orthonormal(np.array(formulae, dtype=np.float64))


@dataclass
class DomainCheck:
    """Holds molecules against what a model was trained on.

    Attributes:
        domain: None: unknown, and nothing is checked.
        allow_extrapolation: whether whatever lies outside is taken without a word.
    """

    domain: TrainingDomain | None
    allow_extrapolation: bool = False
    _said: set[str] = field(default_factory=set)

    def __call__(self, molecules: Sequence[Molecule]) -> None:
        """Check molecules that are to be predicted.

        Each kind of extrapolation is a warning in the log, once for each model.

        Raises:
            ValueError: an element that training did not show; names the molecule.
        """
        if self.allow_extrapolation:
            return
        if self.domain is None:
            self._say(
                "unknown",
                "the record of the model does not say what it was trained on (an older version"
                " wrote it): elements, charges, sizes and compositions are not checked",
            )
            return
        outside: dict[str, list[tuple[Molecule, str]]] = {}
        for molecule in molecules:
            self._refuse_unseen(molecule, self.domain)
            for what, shown in self.domain.extrapolated(molecule).items():
                outside.setdefault(what, []).append((molecule, shown))
        for what, found in outside.items():
            first, shown = found[0]
            others = f" and {len(found) - 1} more" if len(found) > 1 else ""
            self._say(
                what,
                f"'{first.key}'{others}: {what}: the {self.domain.molecules:,} training molecules"
                f" have {shown}; results are extrapolated (allow_extrapolation accepts this)",
            )

    @staticmethod
    def _refuse_unseen(molecule: Molecule, domain: TrainingDomain) -> None:
        unseen = domain.unseen_elements(molecule)
        if unseen:
            raise ValueError(
                f"'{molecule.key}': element {', '.join(unseen)}: never seen in training, which had"
                f" {' '.join(domain.elements)}; use a model that was trained on it, or set"
                " allow_extrapolation, which gives numbers without meaning"
            )

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.warning("%s", text)


def in_span(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Whether every asked row is a linear combination of known rows: bool [M]."""
    return _within(_orthonormal(known), asked)


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows with the same span."""
    _, singular, basis = np.linalg.svd(rows, full_matrices=False)
    # What rounding leaves of a singular value that is zero is no direction of the span
    return basis[singular > 1e-9 * max(singular.max(initial=0.0), 1e-9)]


def _within(basis: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Whether every asked row lies in the span of orthonormal rows: bool [M]."""
    return np.abs(asked - asked @ basis.T @ basis).max(axis=1, initial=0.0) < 1e-6


def _spanning(rows: np.ndarray) -> np.ndarray:
    """Choose rows of which all are linear combinations, small molecules first: [<= Z, Z]."""
    rows = np.unique(rows, axis=0)
    rows = rows[np.argsort(rows.sum(axis=1), kind="stable")]
    chosen: list[int] = []
    rest = rows.astype(np.float64)
    while True:
        left = np.flatnonzero(np.abs(rest).max(axis=1, initial=0.0) > 1e-6)
        if not len(left):
            return rows[chosen]
        chosen.append(int(left[0]))
        direction = rest[left[0]] / np.linalg.norm(rest[left[0]])
        # Twice, because rounding leaves a part of the direction the first time
        for _ in range(2):
            rest -= np.outer(rest @ direction, direction)


def _counts(atomic_numbers: np.ndarray) -> np.ndarray:
    """Atoms of every element: int64 [Z]."""
    return np.bincount(atomic_numbers, minlength=MAX_Z + 1).astype(np.int64)


def _formula(counts: np.ndarray) -> str:
    """Carbon and hydrogen first, then by name, as Hill has it."""
    numbers = sorted(map(int, np.flatnonzero(counts)), key=lambda z: (z != 6, z != 1, symbol(z)))
    return "".join(f"{symbol(z)}{counts[z] if counts[z] > 1 else ''}" for z in numbers)


def _parse(formula: str) -> np.ndarray:
    """Atoms of every element: int64 [Z]; raises ValueError or KeyError for what is no formula."""
    counts = np.zeros(MAX_Z + 1, dtype=np.int64)
    if not formula or _TERM.sub("", formula):
        raise ValueError(f"'{formula}' is no formula")
    for name, number in _TERM.findall(formula):
        counts[atomic_number(name)] += int(number or 1)
    return counts


def _name(z: int) -> str:
    return symbol(z) if z in ELEMENTS else f"Z = {z}"


def _listed(values: Iterable[int], form: str) -> str:
    return ", ".join(form.format(value) for value in values)


def _both(one: dict[int, int] | None, other: dict[int, int] | None) -> dict[int, int] | None:
    """Molecules by charge or multiplicity of two domains together; None: unknown."""
    return (
        None
        if one is None or other is None
        else dict(sorted((Counter(one) + Counter(other)).items()))
    )


def _by_number(content: Mapping[str, int] | None) -> dict[int, int] | None:
    return None if content is None else {int(key): int(value) for key, value in content.items()}


def _by_text(content: Mapping[int, int] | None) -> dict[str, int] | None:
    return None if content is None else {str(key): value for key, value in content.items()}
