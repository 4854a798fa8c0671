"""Findings on one molecule, and their files: a run that was stopped goes on where it was."""

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.evaluation.error_sums import ErrorSums
from helm_scale.files import write_atomically


@dataclass(frozen=True)
class MoleculeResult:
    """Findings on one molecule.

    Attributes:
        rows: sums and counts by row and name (errors.hamiltonian_errors, comparison.compare).
        facts: nao, far_pairs, seconds_*; with orbitals also occupied, overlap_*, orbitals_dropped,
            ghosts_unprojected; with energies label_gradient_Eh; scf_*.
    """

    key: str
    atomic_numbers: np.ndarray
    rows: dict[str, ErrorSums]
    facts: dict[str, float]


_FORMAT = b"record 2"  # what a record holds


def fingerprint(thing: Any) -> str:
    """SHA-256 over everything that a dataclass holds, arrays byte by byte, and the format of
    records."""
    digest = hashlib.sha256(_FORMAT)
    _feed(digest, thing)
    return digest.hexdigest()


def _feed(digest: Any, thing: Any) -> None:
    if is_dataclass(thing):
        for field in fields(thing):
            digest.update(field.name.encode())
            _feed(digest, getattr(thing, field.name))
    elif isinstance(thing, np.ndarray):
        digest.update(f"{thing.dtype}{thing.shape}".encode())
        digest.update(np.ascontiguousarray(thing).tobytes())
    else:
        digest.update(repr(thing).encode())


def save(record: MoleculeResult, path: Path, mark: str) -> None:
    """Write a record and the fingerprint of its job; the file appears as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "fingerprint": mark,
        "key": record.key,
        "atomic_numbers": record.atomic_numbers.tolist(),
        "rows": record.rows,
        "facts": record.facts,
    }
    write_atomically(path, json.dumps(content))


def load(path: Path, mark: str) -> MoleculeResult | None:
    """Read a record if it is that of the job with this fingerprint; None where there is none or it
    is another job's."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content["fingerprint"] != mark:
        return None
    rows = {
        row: {name: (float(total), float(count)) for name, (total, count) in one.items()}
        for row, one in content["rows"].items()
    }
    return MoleculeResult(
        content["key"], np.array(content["atomic_numbers"]), rows, content["facts"]
    )
