"""YAML files and dotted overrides into settings; a mistake becomes one clear line."""

import difflib
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from helm_scale.config.strict import Strict

ConfigT = TypeVar("ConfigT", bound=Strict)
CONFIGS = Path(__file__).parents[1] / "configs"  # in a checkout a link to the folder at its top
# Keys that were called otherwise in records of format 1: refused in YAML and on the command line
# with the new name, translated where a record is read (records.py).
RENAMED = {
    "training.bins": "micro_batches",
    "training.frozen": "freeze_prefixes",
    "model.pair_reads": "pair_inputs",
    "model.two_stage": "tensor_product_stage",
    "accept_changes": "allow_config_change",
}


def load(
    kind: type[ConfigT],
    argv: Sequence[str] | None = None,
    *,
    words: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Build a config from `--config NAME` and dotted overrides (`--model.lmax 4`).

    The later overrides the earlier. `--help` prints every key with type, default and meaning. A
    flag without value means true.

    Args:
        argv: flags; none: sys.argv.
        words: values by dotted key that were given without a flag; stronger than the file.

    Raises:
        SystemExit: after --help, or with one clear line per mistake (unknown key with a suggestion,
            wrong type).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(help_text(kind) + "\n")
        raise SystemExit(0)
    try:
        overrides = {**(words or {}), **_overrides(arguments)}
        name = overrides.pop("config", None)
        file = None if name is None else config_file(str(name))
        values = {} if file is None else _read_yaml(file)
        for key, value in overrides.items():
            _put(values, key, value)
        return parse(kind, values, str(file or "command line"), overrides)
    except ValueError as error:
        raise SystemExit(str(error)) from None


def config_file(name: str) -> Path:
    """The YAML file of this name: a path, or where it is a plain word a packaged config.

    Raises:
        ValueError: no packaged config of this name; lists them.
    """
    if not name.isidentifier():
        return Path(name)
    if name not in packaged():
        raise ValueError(
            f"--config {name}: no packaged config of this name; wanted a YAML file or one of"
            f" {', '.join(packaged())}"
        )
    return CONFIGS / f"{name}.yaml"


def packaged() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def parse(
    kind: type[ConfigT], values: dict[str, Any], where: str, overridden: Collection[str] = ()
) -> ConfigT:
    """Check values against a config model.

    Args:
        where: file that the values come from, for messages. overridden: dotted keys that came from
            the command line instead.
    Raises:
        ValueError: names the file, the key, what it got and what it wanted.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(
            "\n".join(_explain(kind, item, where, overridden) for item in error.errors())
        ) from None


def dump(config: BaseModel) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested sections by dotted key."""
    by_key: dict[str, Any] = {}
    for key, value in values.items():
        section = isinstance(value, Mapping)
        by_key |= flat(value, f"{prefix}{key}.") if section else {f"{prefix}{key}": value}
    return by_key


def help_text(kind: type[BaseModel]) -> str:
    """Every key of a config model, one line each: type, default, meaning."""
    head = (kind.__doc__ or "").strip()
    name = "  --config NAME  YAML file or packaged config; the keys below override it"
    return "\n".join([head, "", name, "", *_help_lines(kind)])


def new_name(dotted: str) -> str | None:
    """Today's name of a dotted key that was renamed, without its section; None of any other key."""
    for old, new in RENAMED.items():
        if f".{dotted}".endswith(f".{old}"):  # whole words, below any section
            return new
    return None


def _help_lines(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """One line per key, those of sections by their dotted names."""
    lines: list[str] = []
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines += _help_lines(field.annotation, f"{prefix}{name}.")
        else:
            about = f"({_type_name(field.annotation)}; {field.default})"
            lines.append(f"  --{prefix}{name} {about}  {field.description or ''}")
    return lines


def _type_name(annotation: Any) -> str:
    """A type as people write it: alternatives with |, a list as the type of its items."""
    if get_origin(annotation) is Literal:
        return "|".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType, tuple):
        return "|".join(
            dict.fromkeys(_type_name(part) for part in get_args(annotation) if part is not Ellipsis)
        )
    return getattr(annotation, "__name__", str(annotation))


def _overrides(arguments: list[str]) -> dict[str, Any]:
    """Values by dotted key: `--key value`, `--key=value`, or `--key` for true."""
    values: dict[str, Any] = {}
    position = 0
    while position < len(arguments):
        flag = arguments[position]
        if not flag.startswith("--"):
            raise ValueError(f"command line: got '{flag}', wanted --key value (see --help)")
        key, separator, text = flag[2:].partition("=")
        position += 1
        if not separator:
            # "--" tells flags from values: a single dash may begin a negative number
            has_value = position < len(arguments) and not arguments[position].startswith("--")
            text = arguments[position] if has_value else "true"
            position += int(has_value)
        values[key.replace("-", "_")] = _scalar(text)
    return values


def _scalar(text: str) -> Any:
    """Read lists (`[a, b]`) and null as YAML; other text stays, for pydantic to convert."""
    # YAML would turn a folder named 1e-3 or true into a number or a truth value
    if text != "null" and not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"command line: got '{text}', wanted a list such as [a, b]") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: config file not found")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: got {type(values).__name__}, wanted keys and values")
    return values


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a value below its sections, which are made where they are missing."""
    *parents, last = dotted.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ValueError(f"command line: {dotted}: '{parent}' is a value, not a section")
    values[last] = value


def _explain(kind: type[BaseModel], item: Any, where: str, overridden: Collection[str]) -> str:
    """One line for one of pydantic's errors: where, key, got, wanted."""
    *parents, last = item["loc"] or ("",)
    dotted = ".".join(str(part) for part in item["loc"])
    if any(f"{dotted}.".startswith(f"{key}.") for key in overridden):
        where = "command line"
    if item["type"] == "value_error":
        # messages begin with the key; that of a field's own check is its last part of the place
        text = str(item["ctx"]["error"])
        keys = [str(part) for part in item["loc"] if not text.startswith(f"{part}: ")]
        return f"{where}: " + ".".join([*keys, text])
    if item["type"] != "extra_forbidden":
        return f"{where}: {dotted}: got {item.get('input')!r}, {item['msg']}"
    if renamed := new_name(dotted):
        return f"{where}: {dotted}: is now called {'.'.join([*map(str, parents), renamed])}"
    return f"{where}: {dotted}: unknown key{_hint(kind, parents, str(last))}"


def _hint(kind: Any, sections: Sequence[Any], key: str) -> str:
    """The keys that a section has, the most similar one first."""
    for section in sections:
        kind = kind.model_fields[section].annotation
    known = sorted(kind.model_fields)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return (f"; did you mean '{close[0]}'?" if close else ";") + f" known: {', '.join(known)}"
