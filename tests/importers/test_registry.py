"""A dataset is added by one file and one line; an unknown name is refused with the known ones."""

from pathlib import Path

import numpy as np
import pytest

from helm_scale import cli
from helm_scale.config import ImportConfig
from helm_scale.data.format.shards import ShardReader, verify
from helm_scale.dft.molecule import from_canonical
from helm_scale.importers import registry, run
from helm_scale.importers.source import Importer
from tests.importers.conftest import Labels
from tests.tolerances import SHARD_MAX


@pytest.mark.parametrize("name", registry.IMPORTERS)
def test_every_line_of_the_registry_leads_to_an_importer(name: str) -> None:
    assert isinstance(registry.find(name), Importer)


def test_an_unknown_dataset_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"dataset: got 'qm9', wanted one of md17, qh9-stable"):
        run.import_dataset(ImportConfig(dataset="qm9"))


def test_help_lists_every_importer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.IMPORTERS, "toy", "tests.importers.toy:TOY")
    with pytest.raises(SystemExit) as ended:
        cli.main(["shards", "import", "--help"])
    assert ended.value.code == 0
    assert f"DATASET: {', '.join(registry.IMPORTERS)}\n" in capsys.readouterr().out


def test_a_new_importer_is_one_file_and_one_line(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = labels("fluoride", "pbe", "def2-svp")
    numbers, source = original.atomic_numbers, tmp_path / "toy.npz"
    matrix = from_canonical(original.hamiltonian, "def2-svp", numbers)
    np.savez(source, numbers=numbers, positions=original.positions, hamiltonian=matrix)

    monkeypatch.setitem(registry.IMPORTERS, "toy", "tests.importers.toy:TOY")
    config = ImportConfig(dataset="toy", source=str(source), out=str(tmp_path / "out"))
    dataset, proven = run.import_dataset(config)

    assert verify(dataset.folder) == [] and dataset.licence == "CC0-1.0"
    assert dataset.key.tolist() == ["toy-0"] and proven.consistent == proven.samples > 0
    stored = ShardReader(dataset).read(0).hamiltonian
    assert stored is not None and np.abs(stored - original.hamiltonian).max() < SHARD_MAX
