"""Nothing that is loaded can run code: pickles, YAML tags and tar members are refused."""

import hashlib
import json
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import pytest
import torch

from helm_scale import commands, config
from helm_scale.data.format.shards import verify
from helm_scale.model.weights import load_weights
from helm_scale.parallel import snapshot
from helm_scale.parallel.flat_shards import from_replicated
from helm_scale.pretraining import checkpoint
from tests.faults import runs
from tests.pretraining import launching


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple:
        return (Path.touch, (self._witness,))


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """A file that exists once a payload has run; this one's payload works."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(path)))
    path.unlink()
    return path


def reseal(folder: Path) -> None:
    """What somebody does who changes a checkpoint and its sums."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("SHA256SUMS", "COMMITTED")
    )
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    )
    (folder / "SHA256SUMS").write_text(sums)
    mark = {"step": 3, "finite": True, "sums": hashlib.sha256(sums.encode()).hexdigest()}
    (folder / "COMMITTED").write_text(json.dumps(mark))


def test_a_checkpoint_with_a_pickle_is_refused_though_its_sums_hold(
    unbroken: Path, data: Path, witness: Path, tmp_path: Path
) -> None:
    rank = "state/rank-00000-of-00001.safetensors"
    for number, (name, content) in enumerate(
        [(rank, pickle.dumps(Payload(witness))), (rank, b""), ("model.safetensors", b"")]
    ):
        run = Path(shutil.copytree(unbroken, tmp_path / f"run-{number}"))
        *older, folder = checkpoint.committed(run)
        for other in older:
            shutil.rmtree(other)
        (folder / name).write_bytes(content)
        (folder / "state" / ".metadata").write_bytes(pickle.dumps(Payload(witness)))
        if name == "model.safetensors":
            torch.save(Payload(witness), folder / name)
        reseal(folder)
        assert checkpoint.damage(folder) == []
        flags = launching.flags(
            data, run, **{**runs.SETTINGS, "training__steps": 13}, allow_config_change=True
        )
        with pytest.raises(
            ValueError, match=rf"no checkpoint can be loaded: .*{name}: not a file of a checkpoint"
        ):
            commands.pretrain(config.load(config.PretrainConfig, flags))
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot read weights"):
        load_weights(folder / "model.safetensors")
    assert not witness.exists()


def test_sizes_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    name = "rank-00000-of-00001.safetensors"
    for header in (
        {"weights/a": {"dtype": "F32", "shape": [10**13], "data_offsets": [0, 4 * 10**13]}},
        {"weights/a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
    ):
        text = json.dumps(
            {
                **header,
                "__metadata__": {
                    "places": json.dumps({"weights/a": {"shape": [10**13], "start": 0}})
                },
            }
        ).encode()
        (tmp_path / name).write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(ValueError, match=f"{name}: not a file of a checkpoint"):
            snapshot.StateReader(tmp_path)
    (tmp_path / name).write_bytes(struct.pack("<Q", 2**62))
    with pytest.raises(ValueError, match=f"{name}: not a file of a checkpoint"):
        snapshot.StateReader(tmp_path)


def test_a_missing_rank_file_or_a_gap_is_named(tmp_path: Path) -> None:
    tensor = torch.arange(6.0)
    for rank in (0, 1):
        snapshot.capture({"weights/a": from_replicated(tensor, rank, 2)}, rank, 2).write(tmp_path)
    read = torch.zeros(6)
    snapshot.StateReader(tmp_path).fill("weights/a", from_replicated(read))
    assert torch.equal(read, tensor)
    snapshot.capture({"weights/a": from_replicated(tensor[:4].clone(), 1, 2)}, 1, 2).write(tmp_path)
    with pytest.raises(ValueError, match=r"weights/a"):
        snapshot.StateReader(tmp_path).fill("weights/a", from_replicated(read))
    (tmp_path / "rank-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"got 1 files rank-\*, wanted 2"):
        snapshot.StateReader(tmp_path)


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:pathlib.Path.touch [{witness}]", "!!python/name:os.system", "&a [*a]"],
)
def test_yaml_tags_are_refused(tag: str, witness: Path, tmp_path: Path) -> None:
    file = tmp_path / "hostile.yaml"
    file.write_text(f"out: {tag.format(witness=witness)}\n")
    with pytest.raises(SystemExit, match=r"hostile\.yaml: (not valid YAML|out: )"):
        config.load(config.PretrainConfig, ["--config", str(file)])
    assert not witness.exists()


def member(kind: str, outside: Path) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member that tries something."""
    info = tarfile.TarInfo(
        {"absolute": str(outside), "upward": "../../outside"}.get(kind, "mol-99.json")
    )
    info.size = 4
    if kind == "symlink":
        info.type, info.linkname, info.size = tarfile.SYMTYPE, str(outside), 0
    if kind == "huge":
        info.size = 10**13
    return info, b"" if kind in ("symlink", "huge") else b"evil"


@pytest.mark.parametrize("kind", ["absolute", "upward", "symlink", "huge"])
def test_a_hostile_tar_is_refused_and_writes_nothing(kind: str, tmp_path: Path) -> None:
    folder, outside = launching.write_dataset(tmp_path / "a" / "data"), tmp_path / "outside"
    shard = next(folder.glob("*.tar"))
    info, content = member(kind, outside)
    header = info.tobuf(format=tarfile.GNU_FORMAT)
    evil = header + content + b"\0" * (-len(content) % 512)
    whole = shard.read_bytes()
    shard.write_bytes(evil + whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    for record in manifest["shards"]:
        if record["name"] == shard.name:
            record["size"], record["sha256"] = (
                shard.stat().st_size,
                hashlib.sha256(shard.read_bytes()).hexdigest(),
            )
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = {path for path in tmp_path.rglob("*")}
    assert verify(folder)
    assert not outside.exists() and before == {path for path in tmp_path.rglob("*")}
