"""2,000 inputs that no user would write: each reader gives what was written, or names the place.

Anything but a ValueError, a wrong count or a changed value fails.
"""

import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helm_scale.config import ImportConfig
from helm_scale.data.format.xyz import read_xyz
from helm_scale.importers.npz_folder import NpzFolder
from helm_scale.reading.identity import read_identity

SYMBOLS = {"H": 1, "C": 6, "o": 8, "Cl": 17, "D": 1, "17": 17, "I": 53}
COMMON = {"deadline": None, "derandomize": True, "database": None}
QUIET = {**COMMON, "suppress_health_check": list(HealthCheck)}

coordinates = st.floats(-50, 50).map(lambda x: round(x, 6))
words = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8)
names = st.one_of(
    st.sampled_from(["charge", "total_charge", "q", "multiplicity", "spin", "S", "net_charge"]),
    words,
    st.integers(),
)
values = st.recursive(
    st.one_of([
        st.none(), st.booleans(), st.integers(), st.integers(-3, 3), st.floats(),
        st.text(max_size=5), st.complex_numbers(), st.integers(-3, 3).map(np.int64),
        st.floats(width=32).map(np.float32),
    ]),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip


@st.composite
def atoms(draw: st.DrawFn) -> tuple[list[str], np.ndarray]:
    """Symbols and positions that are apart."""
    symbols = draw(st.lists(st.sampled_from(sorted(SYMBOLS)), min_size=1, max_size=4))
    rows = [[2.0 * i, draw(coordinates), draw(coordinates)] for i in range(len(symbols))]
    return symbols, np.array(rows)


@st.composite
def sound_files(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """Text of a file in one of its many shapes, and what stands in it."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    keys = draw(st.lists(words, min_size=1, max_size=4, unique=True))
    text, wanted = draw(st.sampled_from(["", "\ufeff", end])), []
    for key in keys:
        symbols, positions = draw(atoms())
        numbers, charge = [SYMBOLS[s] for s in symbols], draw(st.integers(-2, 0))
        multiplicity = 1 + (sum(numbers) - charge) % 2
        charged = draw(st.sampled_from(["charge", "total_charge", "Charge", "q"]))
        spin = draw(st.sampled_from(["multiplicity", "spin", "mult", "total_spin"]))
        quote = draw(st.sampled_from(["", '"']))
        comment = f"key={quote}{key}{quote} {charged}={charge} {spin}={multiplicity} words"
        rows = [
            f"{s} {x!r} {y!r} {z!r}"
            for s, (x, y, z) in zip(symbols, positions.tolist(), strict=True)
        ]
        text += end.join([str(len(symbols)), comment, *rows]) + end
        text += draw(st.sampled_from(["", end, f" {end}# remark{end}"]))
        wanted.append(
            {"key": key, "charge": charge, "spin": multiplicity, "numbers": numbers, "x": positions}
        )
    return (text.rstrip("\r\n") if draw(st.booleans()) else text), wanted


def read(content: bytes) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.xyz"
        path.write_bytes(content)
        try:
            return read_xyz(path)[0]
        except ValueError as error:
            assert str(path) in str(error)
            raise


@pytest.mark.slow
@settings(max_examples=600, **QUIET)
@given(sound_files())
def test_sound_files_are_read_as_they_were_written(file: tuple[str, list[dict[str, Any]]]) -> None:
    text, wanted = file
    molecules = read(text.encode())
    assert [m.key for m in molecules] == [w["key"] for w in wanted]
    for molecule, written in zip(molecules, wanted, strict=True):
        assert (molecule.charge, molecule.spin_multiplicity) == (written["charge"], written["spin"])
        assert molecule.atomic_numbers.tolist() == written["numbers"]
        assert np.array_equal(molecule.positions, written["x"])


@pytest.mark.slow
@settings(max_examples=600, **QUIET)
@given(sound_files(), st.data())
def test_damaged_files_are_refused_by_place_or_lose_nothing(
    file: tuple[str, list[dict[str, Any]]], data: st.DataObject
) -> None:
    text, wanted = file
    lines = text.split("\n")
    index = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.sampled_from(["drop", "twice", "cut", "junk"]))
    junk = data.draw(
        st.one_of(st.text(max_size=12), st.binary(max_size=8).map(lambda b: b.decode("latin-1")))
    )
    lines[index : index + 1] = {
        "drop": [], "twice": [lines[index]] * 2, "cut": [lines[index][: len(lines[index]) // 2]],
        "junk": [junk],
    }[change]  # fmt: skip
    try:
        molecules = read("\n".join(lines).encode("utf-8", "surrogatepass"))
    except ValueError:
        return
    # Remarks, comment lines and digits may be hit without harm; the frames stay what they are
    assert len(molecules) == len(wanted)


@pytest.mark.slow
@settings(max_examples=600, **QUIET)
@given(st.dictionaries(names, values, max_size=4))
def test_any_info_gives_an_identity_or_a_refusal(info: dict[Any, Any]) -> None:
    numbers = np.array([8, 1, 1])
    try:
        charge, multiplicity = read_identity(info, numbers, "a.xyz, frame 0")
    except ValueError as error:
        assert str(error).startswith("a.xyz, frame 0")
        return
    assert (10 - charge + multiplicity) % 2 == 1 and 1 <= multiplicity <= 11 - charge
    for name in {"charge", "total_charge", "q"} & set(info):
        assert charge == np.asarray(info[name]).item()
    for name in {"multiplicity", "spin"} & set(info):
        assert multiplicity == np.asarray(info[name]).item()


@pytest.mark.slow
@settings(max_examples=200, **QUIET)
@given(
    st.sampled_from(
        ["energy", "charge", "spin_multiplicity", "positions", "forces", "method", "x"]
    ),
    st.one_of([
        st.booleans(), st.integers(-(2**60), 2**60), st.integers(-2, 2), st.floats(),
        st.text(max_size=4), st.lists(st.floats(), max_size=3),
        st.lists(st.integers(-2, 2), max_size=2),
    ]),
)  # fmt: skip
def test_any_field_of_npz_is_read_as_it_is_or_refused(name: str, value: Any) -> None:
    fields = {
        "atomic_numbers": np.array([9, 1]),
        "positions": np.array([[0, 0, 0], [0, 0, 0.9]]),
        "hamiltonian": np.zeros((19, 19)),
        "method": np.array('{"xc": "pbe", "basis": "def2-svp"}'),
    }
    with tempfile.TemporaryDirectory() as folder:
        stored = {**fields, name: np.array(value)}
        np.savez(Path(folder) / "hf.npz", **stored)  # type: ignore[arg-type]
        try:
            source = NpzFolder(Path(folder), ImportConfig(dataset="npz", source=folder))
            molecule = source.read("hf.npz").molecule
        except ValueError as error:
            assert "hf.npz" in str(error)
            return
    got = getattr(molecule, name)
    assert np.array_equal(np.ravel(got), np.ravel(np.array(value, dtype=np.float64)))
