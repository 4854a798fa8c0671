"""Training that starts from another model's weights (`init_from`)."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from helm_scale import commands, config
from helm_scale.data.loading.dataset import Dataset
from helm_scale.reading.domain import TrainingDomain
from tests.pretraining import launching

STILL = {"training__learning_rate": 1e-30, "training__muon_learning_rate": 1e-30}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("source")
    launching.pretrain(data, folder, execution__validate_every=10)
    return folder


def test_training_goes_on_where_the_other_model_stopped(
    data: Path, source: Path, tmp_path: Path
) -> None:
    launching.pretrain(
        data, tmp_path, init_from=str(source), training__steps=1, training__seed=5, **STILL
    )
    before, after = (launching.lines(run)[-1]["validation_h_mae_ueh"] for run in (source, tmp_path))
    assert after == pytest.approx(before, rel=1e-6)
    domains = [commands.load_model(run)[0].training_domain for run in (source, tmp_path)]
    assert domains[0] is not None and domains[1] == domains[0] | domains[0]
    assert domains[1].molecules == 2 * domains[0].molecules


def test_what_does_not_fit_is_new_and_named(
    data: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="helm_scale"):
        launching.pretrain(
            data, tmp_path, init_from=str(source), training__steps=1, model__num_layers=2
        )
    (line,) = [text for text in caplog.messages if text.startswith("init_from")]
    assert "tensors taken; new: trunk.layers.1" in line


def test_a_model_that_cannot_be_gone_on_with_is_refused(
    data: Path, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="nowhere: neither a folder nor a model that ships"):
        launching.pretrain(data, tmp_path / "a", init_from="nowhere")
    other = Path(shutil.copytree(source, tmp_path / "other"))
    (record,) = other.rglob("model.json")
    content = json.loads(record.read_text())
    content["model"]["baseline"] = "minao"
    record.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"baseline minao, wanted none as model\.baseline"):
        launching.pretrain(data, tmp_path / "b", init_from=str(record.parent))


def test_a_domain_of_both_is_that_of_all_molecules(data: Path) -> None:
    dataset = Dataset.open(config.DataConfig(path=str(data)))
    molecules = [dataset.read(int(i)) for i in dataset.split("train")]
    halves = TrainingDomain.of(molecules[::2]) | TrainingDomain.of(molecules[1::2])
    assert halves == TrainingDomain.of(molecules)
