"""Results of one molecule and their files, from which a stopped evaluation goes on."""

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
    """Errors and other facts of one molecule.

    Attributes:
        rows: sums and counts by row and name (errors.hamiltonian_errors, states.compare_states).
        facts: nao, far_pairs, seconds_*; with orbitals also occupied, overlap_*, orbitals_dropped,
            ghosts_unprojected; with energies label_gradient_Eh; scf_*.
    """

    key: str
    atomic_numbers: np.ndarray
    rows: dict[str, ErrorSums]
    facts: dict[str, float]


_FORMAT = b"record 3"  # to be raised when records hold something else: old ones are made anew


def fingerprint(thing: Any) -> str:
    """Hash all values of a dataclass (SHA-256), arrays byte by byte, and the format of records."""
    digest = hashlib.sha256(_FORMAT)
    _feed(digest, thing)
    return digest.hexdigest()


def _feed(digest: Any, thing: Any) -> None:
    if is_dataclass(thing):
        for field in fields(thing):
            digest.update(field.name.encode())
            _feed(digest, getattr(thing, field.name))
    elif isinstance(thing, np.ndarray):
        # Not by repr, which leaves out the middle of large arrays.
        digest.update(f"{thing.dtype}{thing.shape}".encode())
        digest.update(np.ascontiguousarray(thing).tobytes())
    else:
        digest.update(repr(thing).encode())


def save(record: MoleculeResult, path: Path, mark: str) -> None:
    """Write a record and the fingerprint of its job; the file appears complete or not at all."""
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
    """Read the record of the job with this fingerprint; None if there is none."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content["fingerprint"] != mark:
        return None
    rows = {
        row: {name: (float(total), float(count)) for name, (total, count) in sums.items()}
        for row, sums in content["rows"].items()
    }
    return MoleculeResult(
        content["key"], np.array(content["atomic_numbers"]), rows, content["facts"]
    )
