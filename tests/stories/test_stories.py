"""Each trade is served to the end, from the installed wheel in a folder of its own."""

import tarfile
from pathlib import Path

import pytest

from tests.installed import ROOT, built_wheel, installed, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment that has the wheel."""
    return installed(built_wheel(tmp_path_factory.mktemp("wheel")))


def test_a_developer_of_potentials_gets_from_features_to_dynamics(
    programs: Path, tmp_path: Path
) -> None:
    with tarfile.open(ROOT / "tests/fixtures/format1/bundle.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "bundle").rename(tmp_path / "backbone")
    done = run(tmp_path, programs / "python", ROOT / "tests/stories/mlip_developer.py")
    assert done.returncode == 0, done.stderr
    assert "relaxed and moved for 100 fs" in done.stdout


def test_a_chemist_gets_from_geometries_to_a_shorter_scf(programs: Path, tmp_path: Path) -> None:
    done = run(tmp_path, programs / "python", ROOT / "tests/stories/chemist.py")
    assert done.returncode == 0, done.stderr
    assert "SCF: " in done.stdout
