"""The command `helm-scale`: one task per word, each with a typed config.

    helm-scale pretrain --config quickstart
    torchrun --nproc-per-node 2 -m helm_scale.cli pretrain --config omol_csh_58k

The files in launch/ are the same commands for schedulers that want a script.
"""

import difflib
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from helm_scale import config, crash_log
from helm_scale.extras import MissingExtraError


@dataclass(frozen=True)
class Command:
    """One task.

    Attributes:
        settings: its config; the docstring is what --help says of it.
        words: keys whose values come first and without a flag, as in `shards verify FOLDER`.
        more: key of a list that takes all further words.
        choices: what the first word may be, for --help.
    """

    settings: type[config.Strict]
    words: tuple[str, ...] = ()
    more: str | None = None
    choices: Callable[[], Iterable[str]] | None = None


def _importers() -> Iterable[str]:
    from helm_scale.importers.registry import IMPORTERS  # torch comes with it

    return IMPORTERS


# Each runs the function of helm_scale.commands that has its name, with _ for blanks and dashes.
COMMANDS = {
    "pretrain": Command(config.PretrainConfig),
    "finetune": Command(config.FinetuneConfig),
    "evaluate": Command(config.EvaluateConfig),
    "predict": Command(config.PredictConfig),
    "export": Command(config.ExportConfig),
    "replay": Command(config.ReplayConfig),
    "low-data": Command(config.LowDataConfig),
    "summary": Command(config.SummaryConfig, ("folder",)),
    "shards generate": Command(config.GenerateConfig),
    "shards import": Command(config.ImportConfig, ("dataset",), choices=_importers),
    "shards verify": Command(config.VerifyConfig, ("folder",)),
    "shards info": Command(config.InfoConfig, ("data.path",)),
    "shards split": Command(config.SplitConfig),
    "shards leaks": Command(config.LeaksConfig),
    "shards repack": Command(config.RepackConfig),
    "shards concat": Command(config.ConcatConfig, ("out",), more="folders"),
}
HELP = ("--help", "-h")
INTERRUPTED = 130  # exit code of shells for a command that SIGINT ended
# What a user can cause; of everything else the traceback is kept. ChildProcessError is an OSError.
MISTAKES = (OSError, FloatingPointError, MemoryError, MissingExtraError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and print what it returns.

    Args:
        arguments: of the command line, without the program's name; none: sys.argv.
    Raises:
        SystemExit: after --help, with one clear message for a mistake of the user, with one line
            that names the file of the traceback for an error that was not foreseen, or with
            INTERRUPTED after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        text = _run(*parse(given))
    except MISTAKES as error:
        raise SystemExit(_last_words(str(error) or repr(error))) from None
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{' '.join(['helm-scale', *given[:1]])}: interrupted\n")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        known = isinstance(error, ValueError) and crash_log.is_meant_for_users(error)
        message = str(error) if known else crash_log.keep(error, given)
        raise SystemExit(_last_words(message)) from None
    if text:
        sys.stdout.write(text + "\n")


def _last_words(message: str) -> str | int:
    """The message, or the exit code alone where another rank has said the same."""
    return 1 if crash_log.tell_launcher(message) else message


def _run(name: str, settings: config.Strict) -> str:
    """Run a command; returns what it has to say."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("helm_scale").setLevel(logging.INFO)
    from helm_scale import commands  # torch comes with it: after --help and mistakes

    text: str = getattr(commands, name.replace(" ", "_").replace("-", "_"))(settings)
    return text


def parse(arguments: Sequence[str]) -> tuple[str, config.Strict]:
    """Read a command line: the name of the command, and its config.

    Raises:
        SystemExit: after --help, or with one clear message for a mistake of the user.
    """
    name, rest = _find(list(arguments))
    return name, _settings(name, rest)


def _find(given: list[str]) -> tuple[str, list[str]]:
    """Name of the command and what follows it."""
    for count in (2, 1):
        name = " ".join(given[:count])
        if name in COMMANDS and len(given) >= count:
            return name, given[count:]
    group = [name for name in COMMANDS if given and name.startswith(f"{given[0]} ")]
    asked = given[1:] if group else given
    if not asked or asked[0] in HELP:
        sys.stdout.write(_usage(group or list(COMMANDS)) + "\n")
        raise SystemExit(0)
    wanted = " ".join(given[:2] if group else given[:1])
    close = difflib.get_close_matches(wanted, COMMANDS, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise SystemExit(f"helm-scale: unknown command '{wanted}'; {hint}see helm-scale --help")


def _settings(name: str, rest: list[str]) -> config.Strict:
    """The config of a command: its words, then flags."""
    command = COMMANDS[name]
    count = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    words, flags = rest[:count], rest[count:]
    if any(word in HELP for word in flags):
        sys.stdout.write(_help(name) + "\n")
        raise SystemExit(0)
    first, further = words[: len(command.words)], words[len(command.words) :]
    if len(first) < len(command.words) or bool(further) != bool(command.more):
        got = f"'{' '.join(words)}'" if words else "nothing"
        raise SystemExit(f"got {got}, wanted {_call(name)} [--key value ...]")
    values: dict[str, Any] = dict(zip(command.words, first, strict=True))
    if command.more:
        values[command.more] = further
    return config.load(command.settings, flags, words=values)


def _call(name: str) -> str:
    """How a command is called: `helm-scale shards verify FOLDER`."""
    command = COMMANDS[name]
    words = [word.rpartition(".")[2].upper() for word in command.words]
    more = [f"{command.more.upper()} ..."] if command.more else []
    return " ".join(["helm-scale", name, *words, *more])


def _summary(command: Command) -> str:
    return (command.settings.__doc__ or "").strip().splitlines()[0]


def _usage(names: list[str]) -> str:
    """What --help says without a command."""
    width = max(map(len, names))
    rows = [f"  {name:{width}}  {_summary(COMMANDS[name])}" for name in names]
    return "\n".join(
        [
            "helm-scale COMMAND [--config NAME] [--key value ...]",
            "",
            *rows,
            "",
            "helm-scale COMMAND --help lists the keys. NAME is a YAML file or a packaged config:",
            f"{', '.join(config.packaged())}.",
        ]
    )


def _help(name: str) -> str:
    """What --help says of a command."""
    command = COMMANDS[name]
    lines = [f"{_call(name)} [--config NAME] [--key value ...]"]
    if command.choices:
        lines.append(f"{command.words[0].upper()}: {', '.join(command.choices())}")
    return "\n".join([*lines, "", config.help_text(command.settings)])


if __name__ == "__main__":
    main()
