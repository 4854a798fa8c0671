"""Every benchmark runs with --quick and ends with one JSON object, and names no figure that it has not measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def figures(script: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, f"benchmarks/{script}", "--quick"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_throughput_measures_growing_molecules() -> None:
    rows = figures("throughput.py")["rows"]
    assert [row["atoms"] for row in rows] == [10, 20]
    assert all(row["pairs_per_second"] > 0 and row["peak_above_model_mb"] > 0 for row in rows)


@pytest.mark.slow
def test_overfit_learns_eight_molecules() -> None:
    found = figures("overfit.py")
    assert found["molecules"] == 8 and found["steps"] == 10
    assert found["h_mae_onsite_ueh"] > 0 and found["h_mae_offsite_ueh"] > 0


@pytest.mark.slow
def test_muon_is_compared_for_the_models_of_two_configs() -> None:
    rows = figures("muon.py")
    assert sorted(rows) == ["configs/quickstart.yaml", "configs/water.yaml"]
    assert all(row["matrices"] > 0 and row["float32_ratio"] > 0 and row["bfloat16_ratio"] > 0 for row in rows.values())


@pytest.mark.slow
def test_protocol_finds_the_same_forces_as_the_script() -> None:
    found = figures("protocol.py")
    assert found["molecules"] == 1 and found["largest_relative_difference"] < 1e-6
    assert all(found[who][f"{kind}seconds_per_molecule"] > 0 for who in ("script", "evaluation") for kind in ("", "cpu_"))
    assert found["molecules_per_second_ratio"] > 0
