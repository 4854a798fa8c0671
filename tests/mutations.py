"""Small faults, put into a copy of the code one at a time, and the tests that notice them.

    python -m tests.mutations                       try all faults that no test has caught yet
    python -m tests.mutations --only NAME ...       try these again
    python -m tests.mutations --list | --check      show the table | check it against the code

Each fault is a mistake that people make: a sign, a factor, a count off by one, a wrong axis, group
or end. A fault that no test notices asks for a test. What was found is kept in
runs/mutations.jsonl; the last line printed is one JSON object. The table is mutation_table.py.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutation_table import TABLE

ROOT = Path(__file__).parent.parent
FOUND = ROOT / "runs" / "mutations.jsonl"
COPIED = ("configs", "data_shards", "helm_scale", "launch", "pyproject.toml", "tests")
PATIENCE = 420  # seconds; a test that takes longer has noticed nothing
FORK = multiprocessing.get_context("fork")  # so that each trial need not import torch anew
IMPORTED = ("torch", "torch.distributed.fsdp", "scipy.linalg", "e3nn.o3", "pyscf.dft", "pydantic")
NOTICED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class Fault(NamedTuple):
    """One change of a file below helm_scale/, in which `old` occurs once; tests below tests/."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def key(self) -> list[str]:
        """What a result is about: the fault, wherever the code has moved."""
        return [self.name, self.old, self.new]


def faults() -> Iterator[Fault]:
    """All rows of the table."""
    for file, usual, rows in TABLE:
        for name, (old, new, *own) in rows.items():
            tests = tuple(" ".join(own or [usual]).split())
            yield Fault(name=name, file=file, old=old, new=new, tests=tests)


def mistakes() -> list[str]:
    """Rows that do not fit the code: the old text is not there once, or a test is not there."""
    wrong = []
    for fault in faults():
        path = ROOT / "helm_scale" / fault.file
        times = path.read_text().count(fault.old) if path.is_file() else 0
        if times != 1:
            wrong.append(f"{fault.name}: {fault.file} has {times} times: {fault.old}")
        for test in fault.tests:
            file, _, case = test.partition("::")
            path = ROOT / "tests" / file
            if not path.is_file() or f"def {case.split('[')[0]}" not in path.read_text():
                wrong.append(f"{fault.name}: there is no test {test}")
    return wrong


def attempt(fault: Fault, tree: Path) -> str:
    """Put a fault into a copy of the tree and run its tests.

    Returns:
        the test that noticed it; empty if none did.
    """
    path, output = tree / "helm_scale" / fault.file, tree / "output.txt"
    right = path.read_text()
    path.write_text(right.replace(fault.old, fault.new))
    process = FORK.Process(target=run_tests, args=(tree, fault.tests, output))
    process.start()
    process.join(PATIENCE)
    path.write_text(right)
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    if process.exitcode in (0, -signal.SIGKILL):
        return ""
    noticed = NOTICED.search(output.read_text())
    if process.exitcode not in (1, 2) or noticed is None:
        raise RuntimeError(f"{fault.name}: pytest failed\n{output.read_text()}")
    return noticed[1]


def run_tests(tree: Path, tests: Sequence[str], output: Path) -> None:
    """Run tests of the copy in this forked process, and end it with pytest's exit code."""
    os.setsid()  # a group of its own, to be killed with the ranks that a test starts
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path[:] = [str(tree), *(place for place in sys.path if place not in ("", str(ROOT)))]
    sys.dont_write_bytecode = True  # .pyc files know a source by its second and its length
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    options = ["-x", "-q", "-rfE", "-p", "no:cacheprovider"]
    code = int(pytest.main([*options, *(f"tests/{test}" for test in tests)]))
    sys.stdout.flush()
    os._exit(code)


def known() -> dict[str, str]:
    """Faults that a test has caught: JSON of their key -> the test."""
    lines = FOUND.read_text().splitlines() if FOUND.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {json.dumps(row["fault"]): row["noticed_by"] for row in rows if row["noticed_by"]}


def try_all(chosen: list[Fault]) -> None:
    """Try faults one at a time in one copy of the tree; a line for each, here and in FOUND."""
    FOUND.parent.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    for package in IMPORTED:
        importlib.import_module(package)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, symlinks=True)
            else:
                shutil.copy(ROOT / name, tree / name)
        for fault in chosen:
            start = time.perf_counter()
            by = attempt(fault, tree)
            seconds = round(time.perf_counter() - start)
            with FOUND.open("a") as file:
                row = {"fault": fault.key, "noticed_by": by, "seconds": seconds}
                file.write(json.dumps(row) + "\n")
            print(f"{fault.name:<40} {seconds:>4} s  {by or 'SURVIVED'}", flush=True)


def summary() -> dict[str, object]:
    """How many faults of the table were noticed, and by which kind of test."""
    caught, every = known(), list(faults())
    by = {fault.name: caught.get(json.dumps(fault.key), "") for fault in every}
    kinds = {"tests/golden": "golden numbers", "tests/model/test_naive": "naive reference"}
    counted = Counter(
        next((kind for start, kind in kinds.items() if test.startswith(start)), "other tests")
        for test in by.values()
        if test
    )
    survived = [name for name, test in by.items() if not test]
    return {"faults": len(every), "noticed": len(every) - len(survived), "noticed_by": counted,
            "survived_or_not_tried": survived}  # fmt: skip


def main() -> int:
    """Read the flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--list", action="store_true", help="show the table")
    parser.add_argument("--check", action="store_true", help="check the table against the code")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="try these, noticed or not")
    chosen = parser.parse_args()
    if chosen.list:
        for fault in faults():
            print(f"{fault.name:<40} {fault.file}: {fault.old}  ->  {fault.new}")
        return 0
    wrong = mistakes()
    if wrong or chosen.check:
        print("\n".join(wrong) or "every row fits the code")
        return len(wrong)
    caught = known()
    if chosen.only:
        try_all([fault for fault in faults() if fault.name in chosen.only])
    else:
        try_all([fault for fault in faults() if json.dumps(fault.key) not in caught])
    print(json.dumps(summary()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
