"""What benchmarks share: a command line with --quick, fresh processes, a last line of JSON."""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def command_line(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Make a parser that knows --quick; quick: what is left then, for the help."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def in_fresh_process(
    script: str, *arguments: object, environment: Mapping[str, str] | None = None
) -> Any:
    """Run a script in a process of its own and read the JSON on its last line."""
    output = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ).stdout
    return json.loads(output.splitlines()[-1])


def report(benchmark: str, **figures: Any) -> None:
    """Print one JSON object: the figures, and the machine, versions and command behind them."""
    about = {
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in ("numpy", "torch")},
        "command": shlex.join(["python", *sys.argv]),
    }
    print(json.dumps({"benchmark": benchmark, **figures, "about": about}))
