"""A bundle reproduces the model without this package, and a damaged one gives one clear error."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import helm_scale
from helm_scale import commands
from helm_scale.config import ExportConfig
from helm_scale.export import bundle, loader
from helm_scale.export.backbone import Backbone
from helm_scale.export.program import LayerFeatures, export_program
from helm_scale.files import sha256
from helm_scale.model.weights import load_weights, save_weights
from helm_scale.types import Geometry
from tests.export.conftest import CONFIG, DOMAIN, METHOD, ROOT, graph, make_model, run_outsider
from tests.pretraining import launching


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def loaded(pristine: Path) -> loader.Backbone:
    return loader.load(pristine)


@pytest.mark.parametrize("sizes", [[5, 3], [2], [1], [1, 1], [2, 1, 7, 8], [8, 8, 8]], ids=str)
def test_program_has_the_features_and_position_gradients_of_the_model_at_any_size(
    loaded: loader.Backbone, sizes: list[int]
) -> None:
    positions, *others = graph(sizes)
    weight = torch.randn(sum(sizes), 49, 8, generator=torch.Generator().manual_seed(1))
    features, gradients, trunk = [], [], make_model().trunk
    for network in (loaded, lambda *tensors: trunk(Geometry(*tensors))):
        leaf = positions.clone().requires_grad_()
        features.append(network(leaf, *others))
        gradients += torch.autograd.grad((features[-1] * weight).sum(), leaf)
    assert features[0].shape == (sum(sizes), 49, 8) and gradients[0].dtype == torch.float64
    for got, wanted in (features, gradients):
        assert (got - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert len(others[1].T) == 0 or gradients[1].abs().max() > 0


@pytest.mark.slow
def test_gradients_of_a_float64_program_are_those_of_finite_differences() -> None:
    config = CONFIG.model_copy(update={"dtype": "float64", "lmax": 6})
    features = LayerFeatures(make_model(config).trunk)
    network = export_program(features, graph([5, 3])).module()
    positions, *others = graph([4, 2])
    weight = torch.randn(6, 49, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(shift: float) -> float:
        with torch.no_grad():
            return float((network(positions + shift * direction, *others)[-1] * weight).sum())

    leaf = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((network(leaf, *others)[-1] * weight).sum(), leaf)
    step = 1e-5
    assert float((gradient * direction).sum()) == pytest.approx(
        (value(step) - value(-step)) / (2 * step), rel=1e-7
    )


def test_bundle_gives_back_the_whole_model(pristine: Path) -> None:
    model, method = commands.load_model(pristine)
    wanted = make_model().state_dict()
    assert method == METHOD and model.config == CONFIG and not model.training
    assert model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_the_error_on_validation_molecules_travels_with_the_model(pristine: Path) -> None:
    assert commands.validation_error(pristine) == pytest.approx(4e-6)


def test_config_says_what_an_outsider_needs(pristine: Path) -> None:
    record = json.loads((pristine / "config.json").read_text())
    assert record["features"]["irreps"] == "8x0e+8x1o+8x2e+8x3o+8x4e+8x5o+8x6e"
    assert record["training_domain"] == DOMAIN.record() and len(record["elements"]) == 58
    assert record["provenance"] == {
        "run": pristine.parent.name,
        "checkpoint": "step-00000007",
        "weights": "moving average over the steps, decay 0.9",
        "data": {"manifest_sha256": "abc", "train_split": "train", "licence": "CC-BY-4.0"},
        "training": {"ema_decay": 0.9},
        "metrics": {"step": 6, "loss": 1.0, "validation_h_mae_ueh": 4.0},
    }
    assert str(pristine.parent.parent) not in "".join(
        (pristine / name).read_text() for name in ("config.json", "README.md")
    )


def test_the_card_is_made_from_the_run(pristine: Path) -> None:
    card = (pristine / "README.md").read_text()
    for fact in (
        "CC-BY-4.0",
        "elements (atoms): H (900), C (400), O (300), I (10), Bi (1)",
        "1,200 molecules of 2 to 8 atoms",
        "charges (molecules): 0 (800), 1 (400)",
        "xc: pbe",
        "Angstrom, Hartree",
        "validation_h_mae_ueh: 4.0",
        "decay 0.9",
        "arXiv:2510.00224",
    ):
        assert fact in card


@pytest.mark.slow
def test_a_bundle_can_be_exported_again_and_keeps_its_origin(copy: Path) -> None:
    record = (copy / "config.json").read_text()
    commands.export(ExportConfig(source=str(copy), out=str(copy)))
    assert (copy / "config.json").read_text() == record


@pytest.mark.slow
def test_torch_and_safetensors_alone_reproduce_the_golden_features_by_the_code_of_the_card(
    pristine: Path, torch_alone: Path
) -> None:
    assert json.loads(run_outsider(pristine, torch_alone))["golden_error"] <= 1e-5


@pytest.mark.slow
def test_a_bundle_of_two_fsdp2_ranks_loads_with_torch_and_safetensors_alone(
    tmp_path: Path, torch_alone: Path
) -> None:
    data, run, out = (
        launching.write_dataset(tmp_path / "data"),
        tmp_path / "run",
        tmp_path / "bundle",
    )
    launching.trained(
        data, run, 2, execution__engine="fsdp2", training__steps=2, training__ema_decay=0.5
    )
    commands.export(ExportConfig(source=str(run), out=str(out)))
    assert (
        json.loads((out / "config.json").read_text())["provenance"]["weights"]
        == "moving average over the steps, decay 0.5"
    )
    assert json.loads(run_outsider(out, torch_alone))["golden_error"] <= 1e-5


@pytest.mark.skipif(
    "HELM_PLAIN_PYTHON" not in os.environ, reason="`make test-adapters` builds the environment"
)
def test_an_environment_with_nothing_but_torch_and_safetensors_reproduces_the_golden_features(
    pristine: Path,
) -> None:
    command = [os.environ["HELM_PLAIN_PYTHON"], "-I", str(ROOT / "tests/export/outsider.py")]
    result = subprocess.run(command, cwd=pristine, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", bundle.CHECKED)
def test_a_flipped_bit_is_found_by_file_name_wherever_the_bundle_is_used(
    copy: Path, name: str
) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    for use in (bundle.verify, commands.load_model, Backbone.from_pretrained):
        with pytest.raises(
            ValueError,
            match=rf"{re.escape(name)}: SHA-256 got [0-9a-f]{{64}}, wanted [0-9a-f]{{64}}"
            ".*copy the bundle again",
        ):
            use(copy)


@pytest.mark.parametrize("name", [*bundle.CHECKED, bundle.SUMS])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ValueError, match=name):
        bundle.verify(copy)


def test_features_that_deviate_are_an_error_even_where_checksums_hold(copy: Path) -> None:
    weights = load_weights(copy / "model.safetensors")
    weights["trunk.norm.weight"] *= 1.001
    save_weights(weights, copy / "model.safetensors")
    lines = "".join(f"{sha256(copy / name)}  {name}\n" for name in bundle.CHECKED)
    (copy / bundle.SUMS).write_text(lines)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: golden molecule .* deviate by 1\.\de-03"
    ):
        bundle.verify(copy)


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not a bundle"):
        bundle.write(make_model(), METHOD, tmp_path, {})
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
def test_the_launcher_verifies_and_fails_in_one_line(copy: Path) -> None:
    command = [sys.executable, "launch/export.py", "--verify", "--out", str(copy)]
    assert (
        "5 checksums hold"
        in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    (copy / "config.json").write_text("changed")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (
        result.returncode == 1
        and len(result.stderr.splitlines()) == 1
        and "config.json: SHA-256 got" in result.stderr
    )


def test_a_bundle_survives_the_editor_of_its_card_and_the_cache_of_the_hub(
    copy: Path, tmp_path: Path
) -> None:
    (copy / "README.md").write_text((copy / "README.md").read_text() + "license: mit\n")
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in copy.iterdir():
        (cache / path.name).symlink_to(path)
    for folder in (copy, cache):
        assert bundle.verify(folder).files == len(bundle.CHECKED)
        Backbone.from_pretrained(folder)
        commands.load_model(folder)


def test_checksums_of_the_card_in_older_bundles_are_not_heeded(copy: Path) -> None:
    with (copy / bundle.SUMS).open("a") as file:
        file.write("0" * 64 + "  README.md\n")
    bundle.check_sums(copy)


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def make_hostile(folder: Path, mark: Path) -> None:
    """Put code into the program and the loader of a bundle, with checksums that hold."""
    torch.save(Payload(mark), folder / bundle.PROGRAM)
    (folder / bundle.LOADER).write_text(f"open({str(mark)!r}, 'w').close()\n")
    lines = "".join(f"{sha256(folder / name)}  {name}\n" for name in bundle.CHECKED)
    (folder / bundle.SUMS).write_text(lines)


def test_a_hostile_program_and_a_hostile_loader_are_never_run(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    make_hostile(copy, mark)
    features = Backbone.from_pretrained(copy)(*graph([5, 3]))
    commands.load_model(copy)
    helm_scale.load(copy)
    assert torch.equal(features, make_model().trunk(graph([5, 3]))) and not mark.exists()
    torch.load(copy / bundle.PROGRAM, weights_only=False)
    assert mark.exists()  # the payload was live
    mark.unlink()
    runpy.run_path(str(copy / bundle.LOADER))
    assert mark.exists()
