"""A bundle reproduces the model without this package, and a damaged one gives one clear error."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helm_scale import build
from helm_scale.batch import Method, Molecule
from helm_scale.config import ExportConfig, ModelConfig
from helm_scale.data.collate import collate
from helm_scale.export import bundle, golden
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_weights, save_weights

CONFIG = ModelConfig(channels=8, hidden_channels=8, edge_channels=8, num_layers=1, radial_functions=8)
METHOD = Method("pbe", "def2-tzvpd", "def2", 3, None, 1e-10, "none", "PySCF 2.14")
ROOT = Path(__file__).parents[2]
NUMBERS = np.array([6, 1, 1, 53, 8, 6, 1, 83])


def make_model(config: ModelConfig = CONFIG) -> Helm:
    torch.manual_seed(0)
    model = Helm(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        model.reference[[1, 6, 53]] = 1.0
    return model


def graph(sizes: list[int], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Arguments of the trunk for random molecules of these sizes, one charged, some edges on the polar axis."""
    rng = np.random.default_rng(seed)
    molecules = []
    for index, size in enumerate(sizes):
        x = rng.normal(size=(size, 3)) * 2.5
        x[1:2] = x[:1] + [0, 0, 1.1]
        molecules.append(Molecule(str(index), NUMBERS[rng.permutation(8)[:size]], x, index % 2))
    return golden.inputs(collate(molecules, CONFIG))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "step-00000007"
    folder.mkdir()
    save_weights(make_model().state_dict(), folder / "model.safetensors")
    record = {"model": CONFIG.model_dump(mode="json"), "method": dataclasses.asdict(METHOD), "step": 7}
    (folder / "model.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def pristine(checkpoint: Path) -> Path:
    out = checkpoint.parent / "bundle"
    build.export(ExportConfig(source=str(checkpoint), out=str(out)))
    return out


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def program(pristine: Path) -> torch.nn.Module:
    return torch.export.load(pristine / "model.pt2").module()


@pytest.mark.parametrize("sizes", [[5, 3], [2], [1], [1, 1], [2, 1, 7, 8], [8, 8, 8]], ids=str)
def test_program_and_model_agree_for_any_number_of_atoms_edges_and_molecules(program: torch.nn.Module, sizes: list[int]) -> None:
    arguments = graph(sizes)
    wanted = make_model().trunk(*arguments)
    assert wanted.shape == (sum(sizes), 49, 8)
    torch.testing.assert_close(program(*arguments), wanted, rtol=1e-5, atol=1e-5)


def test_gradients_with_respect_to_positions_pass_through_the_program(program: torch.nn.Module) -> None:
    positions, *others = graph([5, 3])
    weight = torch.randn(8, 49, 8, generator=torch.Generator().manual_seed(1))
    gradients = []
    for trunk in (program, make_model().trunk):
        leaf = positions.clone().requires_grad_()
        gradients += torch.autograd.grad((trunk(leaf, *others) * weight).sum(), leaf)
    assert gradients[0].dtype == torch.float64
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_float64_program_are_those_of_finite_differences() -> None:
    config = CONFIG.model_copy(update={"dtype": "float64", "lmax": 6})
    trunk = bundle.program(make_model(config).trunk, config).module()
    positions, *others = graph([4, 2])
    weight = torch.randn(6, 49, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(shift: float) -> float:
        with torch.no_grad():
            return float((trunk(positions + shift * direction, *others) * weight).sum())

    leaf = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((trunk(leaf, *others) * weight).sum(), leaf)
    step = 1e-5
    assert float((gradient * direction).sum()) == pytest.approx((value(step) - value(-step)) / (2 * step), rel=1e-7)


def test_bundle_gives_back_the_whole_model(pristine: Path) -> None:
    model, method = build.load_model(pristine)
    wanted = make_model().state_dict()
    assert method == METHOD and model.config == CONFIG and not model.training
    assert model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_config_says_what_an_outsider_needs(pristine: Path) -> None:
    record = json.loads((pristine / "config.json").read_text())
    assert record["features"]["irreps"] == "8x0e+8x1o+8x2e+8x3o+8x4e+8x5o+8x6e"
    assert record["elements_in_training"] == [1, 6, 53] and len(record["elements"]) == 58
    assert record["provenance"] == {"run": pristine.parent.joinpath("step-00000007").name, "checkpoint": "step-00000007", "step": 7}
    assert str(pristine.parent) not in "".join((pristine / name).read_text() for name in ("config.json", "README.md"))


def test_a_bundle_can_be_exported_again_and_keeps_its_origin(copy: Path) -> None:
    record = (copy / "config.json").read_text()
    build.export(ExportConfig(source=str(copy), out=str(copy)))
    assert (copy / "config.json").read_text() == record


def test_torch_and_safetensors_alone_reproduce_the_golden_features_by_the_code_of_the_card(pristine: Path) -> None:
    result = subprocess.run([sys.executable, str(ROOT / "tests/export/outsider.py")], cwd=pristine, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_flipped_bit_is_found_wherever_the_bundle_is_used(copy: Path) -> None:
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(data))
    for use in (bundle.verify, build.load_model):
        with pytest.raises(ValueError, match=r"model\.safetensors: SHA-256 got [0-9a-f]{64}, wanted [0-9a-f]{64}.*copy the bundle again"):
            use(copy)


@pytest.mark.parametrize("name", [*bundle.FILES, bundle.SUMS])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ValueError, match=name):
        bundle.verify(copy)


def test_features_that_deviate_are_an_error_even_where_checksums_hold(copy: Path) -> None:
    weights = load_weights(copy / "model.safetensors")
    weights["trunk.norm.weight"] *= 1.001
    save_weights(weights, copy / "model.safetensors")
    lines = "".join(f"{bundle.sha256(copy / name)}  {name}\n" for name in bundle.FILES)
    (copy / bundle.SUMS).write_text(lines)
    with pytest.raises(ValueError, match=r"model\.safetensors: golden molecule .* deviate by 1\.\de-03"):
        bundle.verify(copy)


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not a bundle"):
        bundle.write(make_model(), METHOD, tmp_path, {})
    assert (tmp_path / "thesis.txt").exists()


def test_the_launcher_verifies_and_fails_in_one_line(copy: Path) -> None:
    command = [sys.executable, "launch/export.py", "--verify", "--out", str(copy)]
    assert "5 checksums hold" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (copy / "README.md").write_text("changed")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1 and "README.md: SHA-256 got" in result.stderr
