"""What a model was trained on is counted rightly, travels with it, and other molecules are told."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from helm_scale.config import DataConfig
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.tools.domain import training_domain
from helm_scale.reading.domain import DomainCheck, TrainingDomain, in_span
from helm_scale.types import Molecule

QUICKSTART = Path(__file__).parents[2] / "data_shards/quickstart"
WATER = [8, 1, 1]


def molecule(numbers: list[int], charge: int = 0, multiplicity: int = 1) -> Molecule:
    """Atoms in a row."""
    positions = np.arange(3.0 * len(numbers)).reshape(-1, 3)
    key = "-".join(map(str, numbers))
    return Molecule(
        key, np.array(numbers), positions, charge=charge, spin_multiplicity=multiplicity
    )


@pytest.fixture
def organic() -> TrainingDomain:
    """Of water, its cation, ammonia, methanol and ethanol."""
    return TrainingDomain.of([
        molecule(WATER), molecule(WATER, 1, 2), molecule([7, 1, 1, 1]),
        molecule([6, 8, 1, 1, 1, 1]), molecule([6, 6, 8, 1, 1, 1, 1, 1, 1]),
    ])  # fmt: skip


def test_the_domain_counts_atoms_and_molecules_and_survives_json(organic: TrainingDomain) -> None:
    assert organic == TrainingDomain(
        molecules=5,
        elements={"H": 17, "C": 3, "N": 1, "O": 4},
        atoms=(3, 9),
        charges={0: 4, 1: 1},
        multiplicities={1: 4, 2: 1},
        compositions=("H2O", "H3N", "CH4O"),  # ethanol is twice methanol minus water
    )
    record = {"training_domain": json.loads(json.dumps(organic.record()))}
    assert TrainingDomain.read(record, "config.json") == organic
    assert TrainingDomain.read({}, "config.json") is None


def test_compositions_that_are_kept_span_all_and_no_more() -> None:
    rng = np.random.default_rng(0)
    basis = rng.integers(0, 4, size=(6, 9))
    rows = rng.integers(0, 5, size=(400, 6)) @ basis
    numbers = [[z + 1 for z, n in enumerate(row) for _ in range(n)] for row in rows if row.any()]
    domain = TrainingDomain.of(molecule(atoms) for atoms in numbers)
    assert domain.compositions is not None
    assert len(domain.compositions) == np.linalg.matrix_rank(rows)
    assert not any(domain.extrapolated(molecule(atoms)) for atoms in numbers)


def test_free_atoms_with_given_energies_widen_the_span_and_nothing_else() -> None:
    hydrogen = molecule([1, 1])
    narrow = TrainingDomain.of([molecule(WATER)])
    wide = TrainingDomain.of([molecule(WATER)], free_atoms=[1, 8])
    assert "a composition that is no combination of theirs" in narrow.extrapolated(hydrogen)
    assert list(wide.extrapolated(hydrogen)) == ["fewer than 3 atoms"]
    assert wide.elements == narrow.elements


@pytest.mark.parametrize(
    ("damage", "name"),
    [({"atoms": [1]}, "unpack"), ({"elements": {"Xx": 1}}, "Xx"), ({"charges": {"a": 1}}, "'a'"),
     ({"compositions": ["H2O\n"]}, "no formula"), ({"molecules": None}, "NoneType")],
    ids=str,
)  # fmt: skip
def test_a_damaged_record_is_refused_by_file(
    organic: TrainingDomain, damage: dict[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=rf"config\.json: training_domain: damaged .*{name}"):
        TrainingDomain.read({"training_domain": {**organic.record(), **damage}}, "config.json")


@pytest.mark.parametrize(
    ("outside", "words"),
    [(molecule([7, 1, 1, 1, 1], charge=2), ["charge +2", "charges +0, +1"]),
     (molecule([8, 8, 1], multiplicity=4), ["multiplicity 4", "multiplicities 1, 2"]),
     (molecule([1] * 10), ["more than 9 atoms", "3 to 9 atoms"]),
     (molecule([1]), ["fewer than 3 atoms"]),
     (molecule([6, 1, 1, 1, 1]), ["composition", "H2O, H3N, CH4O"])],
    ids=lambda x: x.key if isinstance(x, Molecule) else "",
)  # fmt: skip
def test_what_training_did_not_show_is_said_once(
    organic: TrainingDomain,
    outside: Molecule,
    words: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    check = DomainCheck(organic)
    for _ in range(3):
        check([molecule(WATER), outside, outside])
    texts = [record.message for record in caplog.records if words[0] in record.message]
    assert len(texts) == 1 and all(word in texts[0] for word in words)
    assert f"'{outside.key}' and 1 more" in texts[0] and "5 training molecules" in texts[0]


def test_an_unseen_element_is_refused_and_a_setting_accepts_all(
    organic: TrainingDomain, caplog: pytest.LogCaptureFixture
) -> None:
    sulphide = molecule([16, 1, 1], charge=4)
    with pytest.raises(ValueError, match=r"'16-1-1': element S: never seen in training.*H C N O"):
        DomainCheck(organic)([molecule(WATER), sulphide])
    with pytest.raises(ValueError, match="element Z = 92: never seen"):
        DomainCheck(organic)([molecule([92, 1, 1])])
    caplog.clear()
    DomainCheck(organic, allow_extrapolation=True)([sulphide])
    assert not caplog.records


def test_molecules_of_training_pass_in_silence(
    organic: TrainingDomain, caplog: pytest.LogCaptureFixture
) -> None:
    DomainCheck(organic)([molecule(WATER), molecule(WATER, 1, 2), molecule([6, 8, 1, 1, 1, 1])])
    assert not caplog.records


def test_where_nothing_is_known_nothing_is_checked_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check = DomainCheck(None)
    for _ in range(3):
        check([molecule([16, 1, 1])])
    assert len(caplog.records) == 1 and "not checked" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_heads_of_samples_give_what_whole_samples_give() -> None:
    dataset = Dataset.open(DataConfig(path=str(QUICKSTART)))
    train = dataset.split("train")
    whole = TrainingDomain.of(dataset.read(int(index)) for index in train)
    assert training_domain(dataset) == whole
    assert whole.molecules == len(train) == 81 and whole.charges == {-1: 2, 0: 72, 1: 7}


def test_of_remote_shards_elements_and_sizes_are_known_and_nothing_is_fetched(
    tmp_path: Path,
) -> None:
    config = DataConfig(path=f"file:{QUICKSTART}", cache=str(tmp_path))
    dataset = Dataset.open(config)
    domain = training_domain(dataset)
    assert domain.atoms == (2, 8) and domain.molecules == 81 and len(domain.elements) == 58
    assert domain.charges is domain.multiplicities is domain.compositions is None
    assert not list(tmp_path.rglob("*.tar"))
    assert not domain.extrapolated(molecule(WATER, 3, 2))


def test_the_span_is_that_of_linear_combinations() -> None:
    known = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    asked = np.array([[2.0, 1.0, 2.0], [4.0, 0.0, 2.0], [1.0, 0.0, 0.0]])
    assert in_span(known, asked).tolist() == [True, True, False]
