"""Configs are strict: what is misspelt stops the run with one clear line."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from helm_scale import cli, config

KINDS = tuple(command.settings for command in cli.COMMANDS.values())


def write(folder: Path, text: str) -> str:
    """A config file with this text."""
    path = folder / "a.yaml"
    path.write_text(text)
    return str(path)


def mistake(*argv: str) -> str:
    """The message with which loading a pretraining config ends."""
    with pytest.raises(SystemExit) as stop:
        config.load(config.PretrainConfig, argv)
    return str(stop.value)


def test_defaults_stand_without_arguments() -> None:
    assert config.load(config.PretrainConfig, []) == config.PretrainConfig()


def test_overrides_are_stronger_than_the_file_and_the_file_than_the_defaults(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, "out: from_file\nmodel:\n  lmax: 4\n  mmax: 3\n")
    loaded = config.load(
        config.PretrainConfig, ["--model.lmax", "5", "--config", file, "--training.steps=7"]
    )
    assert (loaded.model.lmax, loaded.model.mmax, loaded.model.channels) == (
        5,
        3,
        config.ModelConfig().channels,
    )
    assert (loaded.out, loaded.training.steps) == ("from_file", 7)


def test_of_two_equal_overrides_the_later_counts() -> None:
    flags = ["--training.seed", "1", "--training.seed", "2"]
    assert config.load(config.PretrainConfig, flags).training.seed == 2


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "1E-3"])
def test_powers_of_ten_are_numbers_on_the_command_line_and_in_files(
    tmp_path: Path, text: str
) -> None:
    flags = ["--training.learning_rate", text]
    assert config.load(config.PretrainConfig, flags).training.learning_rate == 1e-3
    file = write(tmp_path, f"training:\n  learning_rate: {text}\n")
    assert config.load(config.PretrainConfig, ["--config", file]).training.learning_rate == 1e-3


@pytest.mark.parametrize("name", ["2026", "1.10", "1e-3", "true", "[draft"])
def test_a_folder_may_have_any_name(name: str) -> None:
    assert config.load(config.PretrainConfig, ["--out", name]).out == name


def test_lists_and_null_are_written_as_in_yaml() -> None:
    modes = config.load(config.FinetuneConfig, ["--modes", "[direct, frozen]"]).modes
    assert modes == ("direct", "frozen")
    assert config.load(config.GenerateConfig, ["--auxbasis", "null"]).auxbasis is None


def test_a_flag_without_value_means_true_and_dashes_are_underscores() -> None:
    assert config.load(config.PretrainConfig, ["--dry-run"]).dry_run
    assert config.load(config.PretrainConfig, ["--dry-run", "--out", "x"]).out == "x"


def test_negative_numbers_are_values_not_flags() -> None:
    assert "training.steps" in mistake("--training.steps", "-3")


def test_an_unknown_key_names_the_file_the_key_and_the_likely_one(tmp_path: Path) -> None:
    file = write(tmp_path, "model:\n  l_max: 4\n")
    message = mistake("--config", file)
    assert message.startswith(
        f"{file}: model.l_max: unknown key; did you mean 'lmax'? known: baseline, "
    )
    assert "\n" not in message


def test_an_unknown_key_far_from_any_lists_the_known_ones() -> None:
    message = mistake("--training.zzzzzz", "1")
    assert message.startswith(
        "command line: training.zzzzzz: unknown key; known: batch_molecules, "
    )


def test_an_unknown_section_is_an_unknown_key() -> None:
    assert mistake("--modle.lmax", "4").startswith(
        "command line: modle: unknown key; did you mean 'model'?"
    )


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    message = mistake("--config", write(tmp_path, "model:\n  lmax: 4\n"), "--model.mmaxx", "2")
    assert message.startswith("command line: model.mmaxx: unknown key; did you mean 'mmax'?")


@pytest.mark.parametrize(
    ("old", "new"),
    [("training.bins", "training.micro_batches"), ("training.frozen", "training.freeze_prefixes"),
     ("model.pair_reads", "model.pair_inputs"), ("model.two_stage", "model.tensor_product_stage"),
     ("accept_changes", "allow_config_change")],
)  # fmt: skip
def test_an_old_key_is_refused_with_its_new_name(tmp_path: Path, old: str, new: str) -> None:
    assert mistake(f"--{old}", "1") == f"command line: {old}: is now called {new}"
    *sections, key = old.split(".")
    text = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(sections))
    file = write(tmp_path, f"{text}{'  ' * len(sections)}{key}: 1\n")
    assert mistake("--config", file) == f"{file}: {old}: is now called {new}"
    with pytest.raises(SystemExit, match=rf"^command line: pretrain.{old}: is now called pretrain"):
        config.load(config.LowDataConfig, [f"--pretrain.{old}", "1"])


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.lmax", "four"), ("model.lmax", "4.5"), ("model.basis", "sto-3g"),
     ("training.steps", "0"), ("execution.engine", "fsdp"), ("training.learning_rate", "fast"),
     ("training.learning_rate", "nan"), ("dry_run", "perhaps"), ("model", "3")],
)  # fmt: skip
def test_a_wrong_value_names_the_key_and_the_value(key: str, value: str) -> None:
    message = mistake(f"--{key}", value)
    assert message.startswith(f"command line: {key}: got ")
    assert value in message


def test_every_mistake_is_reported_at_once() -> None:
    flags = ["--model.lmax", "x", "--training.stepz", "3", "--rum", "a"]
    assert len(mistake(*flags).splitlines()) == 3


def test_more_orders_than_degrees_are_refused() -> None:
    message = mistake("--model.lmax", "2", "--model.mmax", "3")
    assert message == "command line: model.mmax: got 3, wanted at most lmax = 2; set mmax too"


def test_a_list_that_does_not_end_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"got '\[\"direct\]', wanted a list such as \[a, b\]"):
        config.load(config.FinetuneConfig, ["--modes", '["direct]'])


def test_a_value_without_a_flag_is_refused() -> None:
    wanted = "command line: got 'config.yaml', wanted --key value (see --help)"
    assert mistake("config.yaml") == wanted


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    assert mistake("--config", "no/such.yaml") == "no/such.yaml: config file not found"
    assert "a.yaml: not valid YAML" in mistake("--config", write(tmp_path, "model: [\n"))
    assert "a.yaml: got list, wanted keys and values" in mistake(
        "--config", write(tmp_path, "- 1\n")
    )


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert (
        config.load(config.PretrainConfig, ["--config", write(tmp_path, "# nothing\n")])
        == config.PretrainConfig()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_dumping_and_parsing_again_changes_nothing(kind: type[config.PretrainConfig]) -> None:
    first = kind()
    assert config.parse(kind, yaml.safe_load(config.dump(first)), "dump") == first


@pytest.mark.parametrize("kind", KINDS)
def test_help_lists_every_key_with_its_meaning(
    kind: type[config.PretrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        config.load(kind, ["--help"])
    assert stop.value.code == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert all(len(line.split(")  ", 1)[1]) > 5 for line in lines[1:]), (
        "a key without a description"
    )
    assert {line.split()[0].split(".")[0][2:] for line in lines} == {"config", *kind.model_fields}


def test_configs_do_not_change_after_loading() -> None:
    with pytest.raises(ValidationError):
        config.PretrainConfig().out = "elsewhere"  # type: ignore[misc]


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.parent.glob("configs/*.yaml")), ids=lambda path: path.stem
)
def test_committed_configs_are_valid_for_one_launcher(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    fitting = [kind for kind in KINDS if set(values) <= set(kind.model_fields)]
    assert [config.parse(kind, values, path.name) for kind in fitting]


OLD_RECORD = {
    "model": {"lmax": 4, "pair_reads": "each", "two_stage": True},
    "method": {"xc": "pbe", "bins": "of another section"},
    "training": {"bins": 2, "frozen": ["trunk"], "steps": 3},
    "provenance": {"training": {"bins": 2}},
}


@pytest.mark.parametrize("written", [{}, {"format": "helm_scale bundle 1"}], ids=["none", "bundle"])
def test_a_record_of_format_1_is_read_under_the_new_names(written: dict[str, str]) -> None:
    assert config.upgrade({**OLD_RECORD, **written}, "here") == {
        "format": config.FORMAT,
        "model": {"lmax": 4, "pair_inputs": "each", "tensor_product_stage": True},
        "method": {"xc": "pbe", "bins": "of another section"},
        "training": {"micro_batches": 2, "freeze_prefixes": ["trunk"], "steps": 3},
        "provenance": {"training": {"micro_batches": 2}},
    }


def test_the_samples_of_a_replay_file_of_format_1_become_a_list() -> None:
    record = config.upgrade({"samples": {"mol-3": 3, "mol-1": 1}}, "here")
    assert record["samples"] == [["mol-3", 3], ["mol-1", 1]]


def test_a_record_of_this_format_stays_as_it_is() -> None:
    record = {**OLD_RECORD, "format": config.FORMAT}
    assert config.upgrade(record, "here") == record


@pytest.mark.parametrize("text", ["[1]", "{", '{"format": 3}', '{"format": "helm_scale bundle 7"}'])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    wanted = "got format .* wanted at most 2: a newer" if "format" in text else "not the record of"
    with pytest.raises(ValueError, match=f"model.json: {wanted}"):
        config.read_record(path)
