"""Every benchmark runs with --quick and ends with one JSON object that has its figures.

How fast anything is depends on the machine and what else it does; no test asserts that.
"""

import json
import math
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


def has(row: dict, *names: str) -> bool:
    """Whether the figures of these names are there, each a finite number."""
    return row.keys() >= set(names) and all(math.isfinite(row[name]) for name in names)


@pytest.mark.slow
def test_throughput_measures_growing_molecules() -> None:
    rows = figures("throughput.py")["rows"]
    assert [row["atoms"] for row in rows] == [10, 20]
    assert all(has(row, "peak_above_model_mb") for row in rows)
    for row in rows:
        assert row["pairs_per_second"] * row["step_seconds"] == pytest.approx(row["pairs"])


@pytest.mark.slow
def test_overfit_learns_eight_molecules() -> None:
    result = figures("overfit.py")
    assert result["molecules"] == 8 and result["steps"] == 10
    assert has(result, "h_mae_onsite_ueh", "h_mae_offsite_ueh", "seconds")


@pytest.mark.slow
def test_muon_is_compared_for_the_models_of_two_configs() -> None:
    rows = figures("muon.py")["rows"]
    assert sorted(rows) == ["configs/quickstart.yaml", "configs/water.yaml"]
    assert all(has(row, "matrices", "float32_ratio", "bfloat16_ratio") for row in rows.values())


@pytest.mark.slow
def test_checkpoints_are_written_in_the_background_and_at_once() -> None:
    result = figures("checkpoint.py")
    assert has(result, "background_seconds", "at_once_seconds")
    assert 1 < result["bytes_ratio"] < 1.1


@pytest.mark.slow
def test_a_step_launches_few_operations_whatever_the_elements_and_copies_nothing() -> None:
    rows = figures("launches.py")["rows"]
    reached = {
        "published, 16 atoms": 2542,
        "published, 16 atoms, chunks of 512": 3564,
        "published, 16 molecules of 10 atoms": 2542,
        "lean, 12 atoms": 1892,
    }
    for name, operations in reached.items():
        assert rows[name]["operations"] <= 1.05 * operations, name
    assert rows["lean, 20 elements"]["operations"] <= 1.05 * rows["lean, 4 elements"]["operations"]
    assert all(row["operations"] > 1000 and row["copies"] == 0 for row in rows.values())


@pytest.mark.slow
def test_steps_on_a_device_are_measured_one_by_one_and_none_fails() -> None:
    rows = figures("gpu.py")["rows"]
    assert not [name for name, row in rows.items() if "failed" in row]
    for name in ("low data, 2 of 10 atoms", "lean, 4 atoms", "published, 4 atoms"):
        assert has(rows[f"{name}: tf32"], "step_s", "molecules_per_s")
    assert has(rows["low data, 2 of 10 atoms: engine ddp"], "adamw", "soap")


@pytest.mark.slow
def test_flops_counts_both_configs() -> None:
    rows = figures("flops.py")["rows"]
    assert (
        rows["reference"]["mflop_per_directed_edge"] > rows["lean"]["mflop_per_directed_edge"] > 0
    )


@pytest.mark.slow
def test_a_pass_of_a_flow_is_compared_with_regression() -> None:
    rows = figures("flow_cost.py")["rows"]
    assert [(row["config"], row["atoms"]) for row in rows] == [
        (name, n) for name in ("water_flow", "qhflow2_s") for n in (3, 6)
    ]
    assert all(has(row, "flow_to_regression", "flow_to_plain") for row in rows)


@pytest.mark.slow
def test_exchange_compares_exact_towers_with_a_mean() -> None:
    rows = figures("exchange.py")["rows"]
    assert [row["variant"][:5] for row in rows] == ["mean ", "exact", "exact", "exact"]
    for row in rows:
        assert math.isfinite(row["h_mae_onsite_ueh"][0] + row["h_mae_offsite_ueh"][0])
    assert rows[1]["operations_of_first"] < rows[2]["operations_of_first"]


@pytest.mark.slow
def test_settings_trains_every_variant() -> None:
    rows = figures("settings.py")["rows"]
    assert rows[0]["variant"] == "reference" and len(rows) == 5
    assert rows[0]["operations_of_first"] == 1
    for row in rows:
        assert row["h_mae_ueh"] == [pytest.approx(row["mean_h_mae_ueh"])]
        assert 0 < row["operations_of_first"] <= 1


@pytest.mark.slow
def test_trunk_is_measured_plain_and_recomputed() -> None:
    rows = figures("trunk.py")["rows"]
    assert [name for name in rows if name.startswith("helm_scale")] == [
        "helm_scale",
        "helm_scale, messages recomputed",
    ]
    assert all(has(row, "seconds", "peak_mb") for row in rows.values())
    assert len({row["million_parameters"] for row in rows.values()}) == 1


@pytest.mark.slow
def test_memory_measures_plain_and_chunked_steps() -> None:
    rows = figures("memory.py")["rows"]
    assert [(row["atoms"], row["variant"]) for row in rows] == [
        (n, v) for n in (8, 12) for v in ("plain", "chunked")
    ]
    assert all(has(row, "live_mb", "planned_mb", "seconds") for row in rows)
    for plain, chunked in (rows[:2], rows[2:]):
        assert chunked["planned_mb"] < plain["planned_mb"]


@pytest.mark.slow
def test_speed_compares_four_variants_with_a_matrix_product() -> None:
    result = figures("speed.py")
    assert len(result["rows"]) == 4 and has(result, "gflop_per_second")
    assert all(has(row, "share_of_matrix_product_rate") for row in result["rows"].values())


@pytest.mark.slow
def test_streaming_compares_all_ways_on_the_same_files() -> None:
    result = figures("streaming.py")
    for row in result["rows"].values():
        assert all(map(math.isfinite, row.pop("stages_mb_per_cpu_s").values()))
        rates = {way: rate for way, rate in row.items() if isinstance(rate, dict)}
        ways = {way for way, rate in rates.items() if has(rate, "mb_per_s", "mb_per_cpu_s")}
        assert ways == {
            f"{way} {state}"
            for way in ("plain", "webdataset", "webdataset_2", "stream", "stream_2", "coupled_2")
            for state in ("cold", "warm")
        }
    memory = result["peak_mb_4mb_samples"]
    assert memory["four_times"] < 1.1 * memory["one"], (
        "memory follows the prefetch, not the dataset"
    )


def test_packed_steps_are_balanced_and_fixed_counts_are_not() -> None:
    rows = figures("balance.py")["rows"]
    assert {row["ranks"] for row in rows} == {8, 64, 512}
    assert all(
        row["packed"] >= 0.95 > row["naive"]
        for row in rows
        if row["molecules_per_rank"] * row["pair_ranks"] >= 8
    )
    assert all(row["limit"] >= row["packed"] > row["naive"] for row in rows)
    assert all(row["packed"] > 0.99 * row["limit"] for row in rows), (
        "no packing of the same molecules does better"
    )


@pytest.mark.slow
def test_a_large_manifest_is_opened_and_read_at_any_step() -> None:
    result = figures("scale.py")
    assert result["samples"] == 200_000 and len(result["rows"]) == 4
    assert all(
        has(row, "open_cpu_s", "first_batch_cpu_s") and row["peak_mb"] < 2000
        for row in result["rows"]
    )
    opens = {(row["saved_by"], row["loaded_by"]): row["opens_most"] for row in result["checkpoint"]}
    assert opens[8, 8] == opens[64, 64] == 2, "the index, and a rank's own file"
    assert opens[64, 56] < 20 and has(result["checkpoint"][-1], "index_seconds")


@pytest.mark.slow
def test_spectral_loss_compares_three_losses_from_the_same_weights() -> None:
    rows = figures("spectral_loss.py")["rows"]
    assert [row["loss"] for row in rows] == ["before", "plain", "loewdin", "orbitals"]
    assert all(has(row, "occupied", "h_mae") for row in rows)
    assert len({row["occupied"] for row in rows}) == 4


@pytest.mark.slow
def test_water_flow_judges_every_model_by_the_protocol() -> None:
    rows = figures("water_flow.py")["rows"]
    assert [(row["model"], row["pairs"], row["euler_steps"]) for row in rows] == [
        ("plain", "one stage", 1),
        *[
            (name, f"{n} stage{s}", k)
            for n, s in (("one", ""), ("two", "s"))
            for name, k in (("regression", 1), ("flow", 1), ("flow", 3))
        ],
    ]
    assert all(has(row, "seconds_per_prediction") for row in rows)


@pytest.mark.slow
def test_scaling_draws_sizes_and_amounts() -> None:
    result = figures("scaling.py")
    assert {(row["size"], row["molecules"]) for row in result["rows"]} == {
        (size, count) for size in "24" for count in (2, 4)
    }
    assert (ROOT / result["plot"]).stat().st_size > 10_000


@pytest.mark.slow
def test_protocol_finds_the_same_forces_as_the_script() -> None:
    result = figures("protocol.py")
    assert result["molecules"] == 1 and result["largest_relative_difference"] < 1e-6
    for who in ("script", "evaluation"):
        assert has(result[who], "seconds_per_molecule", "cpu_seconds_per_molecule")
    assert has(result, "molecules_per_second_ratio")


@pytest.mark.slow
def test_ranks_that_share_a_molecule_find_the_same_numbers() -> None:
    rows = figures("sharing.py")["rows"]
    assert [row["ranks"] for row in rows] == [1, 2, 4]
    for row in rows:
        assert row["loss"] == pytest.approx(rows[0]["loss"], rel=1e-5)
        assert row["gradient_norm"] == pytest.approx(rows[0]["gradient_norm"], rel=1e-5)
        assert row["bytes_sent"] == rows[0]["bytes_sent"] and sum(row["shares"]) == row["pairs"]
        assert max(row["shares"]) - min(row["shares"]) <= 1


@pytest.mark.slow
def test_an_epoch_on_kept_features_is_compared_with_one_without() -> None:
    result = figures("finetune_cache.py")
    assert result["molecules"] == 64 and has(result, "making_seconds", "ratio")


@pytest.mark.slow
def test_the_projection_removes_noise_and_its_cost_is_measured() -> None:
    result = figures("potential.py")
    assert [row["atoms"] for row in result["cost"]] == [8]
    assert has(result["cost"][0], "first_projection_seconds", "fock_build_seconds", "peak_gib")
    noisy = [row for row in result["noise"] if row["noise_ueh"] == 1000.0]
    assert len(noisy) == 4
    assert all(row["projected_h_mae_ueh"] < row["raw_h_mae_ueh"] for row in noisy)
