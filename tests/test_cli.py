"""The command line: every command is listed, called by its name, and helps with mistakes."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helm_scale import cli, commands, config, crash_log
from helm_scale.dft.processes import run_parallel
from helm_scale.reading import label_units

ROOT = Path(__file__).parent.parent


def ended(*arguments: str) -> Any:
    """What the command ends with: text for a mistake, 0 after help."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return stop.value.code


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ([], ["--help"], ["-h"]):
        assert ended(*asked) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert len(lines) == len(cli.COMMANDS) and max(map(len, lines)) <= 100
        for line, name in zip(lines, cli.COMMANDS, strict=True):
            assert line.startswith(f"  {name} ") and line.endswith(".")


def test_help_of_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("shards") == 0
    assert "shards verify" in (said := capsys.readouterr().out) and "pretrain" not in said


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_function_and_lists_its_keys(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(getattr(commands, name.replace(" ", "_").replace("-", "_")))
    assert ended(*name.split(), "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"helm-scale {name}")
    assert all(f"  --{key}" in said for key in cli.COMMANDS[name].settings.model_fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian"], "helm-scale: unknown command 'pretrian'; did you mean 'pretrain'?"),
        (["shards", "verfy"], "unknown command 'shards verfy'; did you mean 'shards verify'?"),
        (["zzz"], "helm-scale: unknown command 'zzz'; see helm-scale --help"),
        (["pretrain", "quickstart"], "got 'quickstart', wanted helm-scale pretrain [--key"),
        (["shards", "verify"], "got nothing, wanted helm-scale shards verify FOLDER [--key"),
        (["shards", "verify", "a", "b"], "got 'a b', wanted helm-scale shards verify FOLDER"),
        (["shards", "concat", "a"], "got 'a', wanted helm-scale shards concat OUT FOLDERS ..."),
        (["pretrain", "--config", "quick"], "--config quick: no packaged config of this name"),
        (["pretrain", "--config", "./quick"], "quick: config file not found"),
        (["pretrain", "--model.lmaxx", "4"], "did you mean 'lmax'?"),
        (["shards", "verify", "nowhere"], "nowhere/manifest.json: not found in "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_line(arguments: list[str], message: str) -> None:
    said = ended(*arguments)
    assert message in said and "\n" not in said


def test_words_become_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[config.Strict] = []

    def remember(settings: config.Strict) -> str:
        seen.append(settings)
        return ""

    for name in ("shards_concat", "shards_import", "shards_info"):
        monkeypatch.setattr(commands, name, remember)
    cli.main(["shards", "concat", "new", "2026", "b c"])
    cli.main(["shards", "import", "md17", "--source", "file.db"])
    cli.main(["shards", "info", "folder", "--ranks", "4"])
    assert seen[0] == config.ConcatConfig(out="new", folders=("2026", "b c"))
    assert seen[1] == config.ImportConfig(dataset="md17", source="file.db")
    assert isinstance(seen[2], config.InfoConfig)
    assert (seen[2].data.path, seen[2].ranks) == ("folder", 4)


def test_a_packaged_config_is_the_file_of_its_name() -> None:
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert config.packaged() == names
    for name in names:
        file = config.config_file(name)
        assert file.resolve() == (ROOT / "configs" / f"{name}.yaml").resolve()
    assert config.config_file("configs/quickstart.yaml") == Path("configs/quickstart.yaml")
    by_name = config.load(config.PretrainConfig, ["--config", "quickstart"])
    by_path = config.load(
        config.PretrainConfig, ["--config", str(ROOT / "configs/quickstart.yaml")]
    )
    assert by_name == by_path


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from helm_scale import cli\n"
        "try: cli.main(['pretrain', '--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_torchrun_starts_the_command_as_a_module() -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "helm_scale.cli", "pretrain", "--config", "quickstart", "--dry-run"]
    result = subprocess.run(
        [sys.executable, *launcher, *command, "--execution.engine", "ddp"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "2 ranks" in result.stdout


def test_an_unforeseen_error_ends_in_one_line_and_a_file_has_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(settings: config.Strict) -> str:
        text: str = vars(settings)["missing"]
        return text

    monkeypatch.setattr(commands, "export", broken)
    monkeypatch.chdir(tmp_path)
    said = ended("export", "--out", "a b")
    (file,) = tmp_path.glob("helm-scale-*.log")
    assert said.startswith("helm-scale export: KeyError: 'missing' (helm_scale/cli.py, line ")
    assert said.endswith(f"; unforeseen: the traceback is in {file}") and "\n" not in said
    lines = file.read_text().splitlines()
    assert lines[0] == "helm-scale export --out 'a b'" and lines[-1] == "KeyError: 'missing'"
    assert any("in broken" in line for line in lines)


def test_ctrl_c_ends_a_command_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(settings: config.Strict) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "shards_verify", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["shards", "verify", "somewhere"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nhelm-scale shards: interrupted\n"


def test_errors_of_ours_are_meant_for_users_from_other_processes_too() -> None:
    unit = functools.partial(label_units.energy_unit, where="here")
    for function, meant in ((unit, True), (int, False)):
        with pytest.raises(ValueError) as elsewhere:
            list(run_parallel(function, ["x"], processes=1, total=1, label="test"))
        assert crash_log.is_meant_for_users(elsewhere.value) == meant
        with pytest.raises(ValueError) as here:
            function("x")
        assert crash_log.is_meant_for_users(here.value) == meant


@pytest.mark.slow
def test_ranks_that_agree_on_an_error_say_it_once_and_torchrun_repeats_it(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *torchrun,
        "--nproc-per-node=2",
        "-m",
        "helm_scale.cli",
        "pretrain",
        "--config=quickstart",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, "--data.path=nowhere", f"--out={tmp_path}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    message = "nowhere/manifest.json: not found"
    said = [line for line in result.stderr.splitlines() if line.startswith(message)]
    assert len(said) == 1, result.stderr
    root_cause = result.stderr.partition("Root Cause")[2]
    assert f"traceback : {message}" in root_cause and "error_file: <N/A>" not in root_cause
