"""Fenced blocks of the pages, and the command lines in them.

A block says how it is checked: `bash` and `python` run as they stand; the lines of `bash dry`,
which would take long or need a cluster, are read by the program that they call.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from torch.distributed.run import get_args_parser

from helm_scale import cli

ROOT = Path(__file__).parent.parent


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """(info string, body) of every block of a page."""
    return re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands_in(body: str) -> Iterator[list[str]]:
    """The words of every command of a block, continued lines joined."""
    for line in body.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def run(command: list[str], *, cwd: Path = ROOT) -> None:
    """Run with the tests' own Python first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr


def check_command(words: list[str]) -> None:
    """Have the program that a command line calls read it: make -n, torchrun's parser, configs."""
    program, *arguments = words
    if program == "make":
        return run(["make", "-n", *arguments])
    if program == "torchrun":
        parsed = get_args_parser().parse_args(arguments)
        program, arguments = "python", [parsed.training_script, *parsed.training_script_args]
    if program == "python" and arguments[0].startswith("launch/"):
        assert (ROOT / arguments[0]).is_file(), arguments[0]
        arguments[0] = Path(arguments[0]).stem.replace("_", "-")
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
        return None
    else:
        assert program == "helm-scale", f"{program}: no way to check this"
    if "--help" in arguments:
        return run(["helm-scale", *arguments])
    cli.parse(arguments)
    return None
