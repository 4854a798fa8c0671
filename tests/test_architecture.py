"""The floors, the doors and the sizes that keep the architecture true, read from the source.

A file imports its own folder and lower floors only; parts on one floor are strangers; an outside
package comes in through its door. Files, functions and launchers stay short.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("units", "files", "extras", "functionals", "crash_log"),
    ("irreps",),
    ("basis",),
    ("config",),
    ("types",),
    ("reading",),
    ("data", "model", "losses", "parallel", "dft"),
    ("optim",),
    ("pretraining", "finetuning", "export", "evaluation", "importers"),
    ("commands",),
    ("api", "cli"),
    ("__init__",),
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
EVERYWHERE = {"numpy", "torch", "helm_scale", *sys.stdlib_module_names}
DOORS = {
    "ase": (
        "data/format/atom_energies.py",
        "data/format/database.py",
        "export/calculator.py",
        "importers/md17.py",
        "reading/frames.py",
    ),
    "deepspeed": ("parallel/",),
    "e3nn": ("export/fairchem.py",),
    "fairchem": ("export/fairchem.py",),
    "h5py": ("importers/",),
    "huggingface_hub": ("export/hub.py",),
    "isal": ("data/",),
    "matplotlib": ("evaluation/", "data/tools/histograms.py", "finetuning/plots.py"),
    "metatensor": ("export/metatomic.py",),
    "metatomic": ("export/metatomic.py",),
    "pydantic": ("config/",),
    "pyscf": ("dft/",),
    "safetensors": ("export/loader.py", "model/weights.py", "parallel/snapshot.py"),
    "scipy": ("evaluation/", "finetuning/tables.py"),
    "tensorboard": ("pretraining/",),
    "torch.distributed": ("parallel/",),
    "torch.utils.tensorboard": ("pretraining/",),
    "tqdm": (
        *("data/", "dft/", "evaluation/", "export/batches.py", "finetuning/"),
        "pretraining/",
    ),
    "webdataset": ("data/",),
    "yaml": ("config/",),
}
SWEPT_TOGETHER = {"utils.py", "common.py", "helpers.py", "misc.py"}

PACKAGE = sorted((ROOT / "helm_scale").rglob("*.py"))
LAUNCHERS = sorted((ROOT / "launch").glob("*.py"))
EVERY = [
    *PACKAGE,
    *LAUNCHERS,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]
FOLDERS = ("configs", "data_shards", "docs", "launch")
TEXTS = [
    *EVERY,
    *ROOT.glob("[A-Za-z]*.*"),
    *[f for top in FOLDERS for f in (ROOT / top).rglob("*")],
]
TEXT_ENDS = {".md", ".py", ".sbatch", ".sh", ".svg", ".toml", ".txt", ".xyz", ".yaml"}


def name_of(path: Path) -> str:
    """Path below the repository, for messages and test ids."""
    return path.relative_to(ROOT).as_posix()


def source(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file imports or reaches as attributes of torch, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield "torch.distributed"


def breaches(path: Path, tree: ast.Module) -> list[str]:
    """Imports of a package file that its floor or a door forbids."""
    inside = path.relative_to(ROOT / "helm_scale").as_posix()
    part = inside.split("/")[0].removesuffix(".py")
    found = []
    for name in imported(tree):
        top, _, rest = name.partition(".")
        if top == "helm_scale":
            other = rest.split(".")[0]
            if other != part and FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF[part]:
                found.append(f"{part} imports {other}, which is not below it")
            continue
        doors = [
            places for package, places in DOORS.items() if (name + ".").startswith(package + ".")
        ]
        if top not in EVERYWHERE and not doors:
            found.append(f"{name}: no door admits this package")
        found += [
            f"{name}: only through {', '.join(places)}"
            for places in doors
            if not inside.startswith(places)
        ]
    return found


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_a_file_imports_lower_floors_and_comes_through_doors(path: Path) -> None:
    assert not breaches(path, source(path))


@pytest.mark.parametrize("path", LAUNCHERS, ids=name_of)
def test_launchers_only_call_the_command(path: Path) -> None:
    outside = {
        name for name in imported(source(path)) if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert outside == {"helm_scale.cli.main"}
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    assert path.name not in SWEPT_TOGETHER
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(source(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name}: {length} lines"


def test_long_calls_name_their_arguments() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in PACKAGE)
    by_place = [
        f"{name_of(path)}:{node.lineno}"
        for path in PACKAGE
        for node in ast.walk(source(path))
        if isinstance(node, ast.Call) and len(node.args) >= 5
    ]
    assert len(by_place) < 1.5 * lines / 1000, by_place


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_the_library_neither_prints_nor_swallows_errors(path: Path) -> None:
    for node in ast.walk(source(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print", f"line {node.lineno}: log it instead"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            silent = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
            assert not (broad and silent), (
                f"line {node.lineno}: catches everything and says nothing"
            )


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_modules_say_what_they_do(path: Path) -> None:
    tree = source(path)
    assert not tree.body or ast.get_docstring(tree), "wanted a module docstring"


def test_text_is_ascii() -> None:
    texts = [path for path in TEXTS if path.suffix in TEXT_ENDS]
    assert not [name_of(path) for path in texts if not path.read_text(encoding="utf-8").isascii()]


def test_a_training_node_needs_neither_pyscf_nor_deepspeed() -> None:
    extras = {"pyscf", "deepspeed", "ase", "matplotlib"}
    code = f"import sys, helm_scale.commands; sys.exit(' '.join({extras} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
