"""A dataset, and the uninterrupted run that every interrupted one must equal."""

from pathlib import Path

import pytest

from tests.faults import runs
from tests.pretraining import launching


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of runs.STEPS steps in one process."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    launching.pretrain(data, run, **runs.SETTINGS)
    return run
