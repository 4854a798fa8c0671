"""Bad input meets one clear line at every launcher, and never a traceback.

Launchers run in this process, as `python launch/NAME.py ...` would, which saves the import.
"""

import json
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from helm_scale.config import ModelConfig
from helm_scale.data.format import codec
from helm_scale.data.format.shards import ShardWriter
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from tests.pretraining import launching

ROOT = Path(__file__).parent.parent
CONFIG = ModelConfig(
    basis="def2-svp",
    lmax=4,
    mmax=1,
    channels=4,
    hidden_channels=4,
    edge_channels=8,
    num_layers=1,
    radial_functions=8,
)


@pytest.fixture
def complaint(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The text a launcher ends with, which Python prints and turns into exit code 1."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "launch" / f"{name}.py"), run_name="__main__")
        assert isinstance(ended.value.code, str)
        return ended.value.code

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with its record."""
    folder = tmp_path_factory.mktemp("source")
    save_weights(Helm(CONFIG).state_dict(), folder / "model.safetensors")
    record = {"model": CONFIG.model_dump(mode="json"), "method": asdict(launching.METHOD)}
    (folder / "model.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A sound dataset with the splits train and validation."""
    return launching.write_dataset(tmp_path / "data")


def unsound_dataset(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: float = 0.0, cut: int = 0
) -> Path:
    """A dataset with true checksums whose matrices hold a forbidden value, or are cut short."""
    encode = codec.encode_matrix

    def cut_short(matrix: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
        parts = encode(matrix, offsets)
        return {**parts, "offsite": parts["offsite"][: len(parts["offsite"]) - cut]}

    with monkeypatch.context() as careless:
        careless.setattr(codec, "_check_labels", lambda molecule: None)
        careless.setattr(codec, "encode_matrix", cut_short)
        writer = ShardWriter(
            folder, launching.METHOD, licence="CC0-1.0", source="made up", molecules_per_shard=8
        )
        for number, split in enumerate(("train", "validation")):
            good = launching.molecule(f"mol-{number}", [8, 1], number)
            assert good.hamiltonian is not None
            writer.write(replace(good, hamiltonian=good.hamiltonian + value), split)
        writer.close()
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in.xyz: empty; wanted at least one molecule in extended XYZ"),
        ("2\n\nFe 0 0 0\nO 0 0 1.6\n", "element Z = 26 is not among the [0-9]+ elements of def2-"),
        (
            "2\n\nO 0 0 0\nH 0 0 1\n",
            r"9 electrons \(charge \+0\) cannot have multiplicity 1; wanted an even multiplicity",
        ),
        ("1\ncharge=1\nH 0 0 0\n", r"charge \+1 leaves no electrons; wanted a lower charge"),
        ("2\n\nO 0 0 0\nH 0 0 0\n", r"frame 0, line 1 .*atoms 0 and 1 coincide"),
    ],
    ids=["empty", "element", "parity", "electrons", "coincident"],
)
@pytest.mark.parametrize("name", ["generate", "predict"])
def test_molecules_that_cannot_be(
    name: str, text: str, message: str, complaint: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.xyz").write_text(text)
    launcher = ["shards", "generate"] if name == "generate" else ["predict", "--source", source]
    said = complaint(*launcher, "--xyz", tmp_path / "in.xyz", "--out", tmp_path / "out")
    assert re.search(message, said) and "\n" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pretrain", "evaluate", "predict", "export", "finetune"])
def test_unknown_keys(name: str, complaint: Callable[..., str]) -> None:
    said = complaint(name, "--ouut", "somewhere")
    assert (
        said.startswith("command line: ouut: unknown key; did you mean 'out'?") and "\n" not in said
    )


def test_a_missing_manifest(complaint: Callable[..., str], source: Path, tmp_path: Path) -> None:
    for launcher in (
        ["shards", "verify", tmp_path],
        ["shards", "info", tmp_path],
        ["evaluate", "--source", source, "--data", tmp_path],
    ):
        said = complaint(*launcher)
        assert "manifest.json: not found" in said and "\n" not in said


def test_damaged_shards(complaint: Callable[..., str], data: Path, tmp_path: Path) -> None:
    shard = data / "shard-000000.tar"
    whole = shard.read_bytes()
    for damaged, message in (
        (whole[: len(whole) // 2], "shard is cut short"),
        (bytes([*whole[:5000], whole[5000] ^ 1, *whole[5001:]]), "bytes have changed"),
    ):
        shard.write_bytes(damaged)
        assert message in complaint("shards", "verify", data)
        said = complaint("pretrain", *launching.flags(data, tmp_path / "run"))
        assert "shard-000000.tar, key 'mol-" in said and message in said and "\n" not in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": np.nan}, "hamiltonian_onsite holds NaN"),
        ({"cut": 1}, r"offsite: got \(69,\), wanted \(70,\)"),
    ],
    ids=["nan", "size"],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_matrices_that_cannot_be(
    change: dict,
    message: str,
    workers: int,
    complaint: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = unsound_dataset(tmp_path / "data", monkeypatch, **change)
    assert re.search(message, complaint("shards", "verify", data))
    said = complaint(
        "pretrain", *launching.flags(data, tmp_path / "run", execution__workers=workers)
    )
    assert re.search(f"shard-000000.tar, key 'mol-0': {message}", said) and "\n" not in said


def test_labels_of_mixed_methods(
    complaint: Callable[..., str], data: Path, source: Path, tmp_path: Path
) -> None:
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"xc": "pbe"', '"xc": "blyp"', 1))
    message = "manifest and shard do not belong together"
    assert message in complaint("shards", "verify", data)
    said = complaint("pretrain", *launching.flags(data, tmp_path / "run"))
    assert message in said and "key 'mol-" in said and "\n" not in said
    judge = ["evaluate", "--source", source, "--data", data, "--split", "validation"]
    said = complaint(*judge)
    assert (
        "and those that the model learned differ: xc 'blyp' and 'pbe'" in said and "\n" not in said
    )


def test_an_engine_of_one_process_on_three_ranks(
    complaint: Callable[..., str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    said = complaint(
        "pretrain", *launching.flags(data, tmp_path / "run", execution__engine="single")
    )
    assert (
        said.startswith("execution.engine: got 'single', which runs in one process")
        and "\n" not in said
    )


def test_a_checkpoint_of_another_model(
    complaint: Callable[..., str], data: Path, source: Path, tmp_path: Path
) -> None:
    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / "COMMITTED").touch()
    (folder / "model.json").write_text((source / "model.json").read_text())
    said = complaint("pretrain", *launching.flags(data, run, model__channels=6))
    assert (
        "a checkpoint of another model or method: " in said
        and "model.channels: run has 4, now 6" in said
        and "\n" not in said
    )

    record = json.loads((source / "model.json").read_text())
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    (mixed / "model.json").write_text(
        json.dumps(record | {"model": record["model"] | {"channels": 6}})
    )
    judge = ["evaluate", "--source", mixed, "--data", data]
    said = complaint(*judge)
    assert "weights of another ModelConfig: trunk." in said and "\n" not in said
    (mixed / "model.json").write_text("{}")
    said = complaint(*judge)
    assert "model.json: not the record of a model" in said and "\n" not in said
