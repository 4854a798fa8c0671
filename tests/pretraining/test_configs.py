"""Every shipped config trains what it is for: basis, functional and parity fit each other."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helm_scale import commands
from helm_scale.config import GenerateConfig, LowDataConfig, PretrainConfig, load
from helm_scale.data.format.shards import ShardWriter
from helm_scale.dft.generate import LabelJob, label
from helm_scale.functionals import has_exact_exchange
from helm_scale.importers import md17, omol_csh, qh9
from helm_scale.types import Method, Molecule

CONFIGS = Path(__file__).parents[2] / "configs"
IMPORTED = {"omol-csh-58k": omol_csh.METHOD, "qh9-stable": qh9.METHOD, "md17": md17.METHOD}
# Config: what makes its data, an importer or a config of labels.
DATA = {
    "omol_csh_58k": "omol-csh-58k",
    "omol_csh_58k_deepspeed": "omol-csh-58k",
    "omol_csh_58k_lean": "omol-csh-58k",
    "qhflow2_s": "qh9-stable",
    "qhflow2_m": "qh9-stable",
    "qhflow2_l": "qh9-stable",
    "qhflow2_xl": "qh9-stable",
    "qhflow2_md17": "md17",
    "quickstart": "quickstart_data",
    "overfit": "quickstart_data",
    "water": "water_data",
    "water_flow": "water_data",
    "low_data": "low_data",
    "helm_small": "helm_small_data",
}
NARROW = {
    "model.channels": 4, "model.hidden_channels": 4, "model.edge_channels": 8,
    "training.steps": 2, "training.batch_molecules": 1, "training.micro_batches": 1,
    "training.warmup_steps": 1, "execution.engine": "single", "execution.device": "cpu",
    "execution.workers": 0, "execution.progress": False, "execution.validate_every": 2,
    "execution.checkpoint_every": 2,
}  # fmt: skip
HYDROGEN_FLUORIDE = Molecule("hf", np.array([9, 1]), np.array([[0.0, 0.1, 0.0], [0.3, 0.2, 0.9]]))
LITHIUM_HYDRIDE = Molecule("lih", np.array([3, 1]), np.array([[0.1, 0.0, 0.0], [0.3, 1.2, 1.0]]))


def method_of(name: str) -> Method:
    """The method of the data that a config is for, made cheap: a coarse grid."""
    source = DATA[name]
    if source in IMPORTED:
        xc, basis = IMPORTED[source].xc, IMPORTED[source].basis
    elif source == "low_data":
        labels = load(LowDataConfig, ["--config", str(CONFIGS / "low_data.yaml")]).labels
        xc, basis = labels.xc, labels.basis
    else:
        made = load(GenerateConfig, ["--config", str(CONFIGS / f"{source}.yaml")])
        xc, basis = made.xc, made.basis
    return Method(
        xc=xc,
        basis=basis,
        ecp="def2",
        grid_level=0,
        auxbasis=None,
        conv_tol=1e-8,
        baseline="minao",
        program="PySCF",
    )


def settings_of(name: str, *flags: str) -> PretrainConfig:
    """The pretraining settings of a shipped config."""
    file = ["--config", str(CONFIGS / f"{name}.yaml")]
    if name != "low_data":
        return load(PretrainConfig, [*file, *flags])
    inside = [flag.replace("--", "--pretrain.", 1) for flag in flags]
    return load(LowDataConfig, [*file, *inside]).pretrain


@pytest.fixture(scope="module")
def dataset_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], Path]:
    """Two labelled molecules of a method, made once for all configs that share it."""
    made: dict[Method, Path] = {}

    def make(method: Method) -> Path:
        if method not in made:
            made[method] = folder = tmp_path_factory.mktemp("data")
            writer = ShardWriter(
                folder, method, licence="CC0-1.0", source="PySCF", molecules_per_shard=1
            )
            for molecule, split in ((HYDROGEN_FLUORIDE, "train"), (LITHIUM_HYDRIDE, "validation")):
                job = LabelJob(
                    molecule=molecule, method=method, forces=False, overlap=True, max_cycle=100
                )
                writer.write(label(job), split)
            writer.close()
        return made[method]

    return make


def test_every_config_of_pretraining_is_listed() -> None:
    of_data = {"quickstart_data", "water_data", "helm_small_data"}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} - of_data == set(DATA)


@pytest.mark.parametrize("name", DATA)
def test_the_parity_is_that_of_the_functional(name: str) -> None:
    model, method = settings_of(name).model, method_of(name)
    assert model.basis == method.basis
    assert model.parity == ("full" if has_exact_exchange(method.xc) else "semilocal")


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_two_steps_are_trained_on_data_of_its_kind(
    name: str, dataset_of: Callable[[Method], Path], tmp_path: Path
) -> None:
    flags = NARROW | {"data.path": dataset_of(method_of(name)), "out": tmp_path / "run"}
    config = settings_of(name, *[f"--{key}={value}" for key, value in flags.items()])
    commands.pretrain(config)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [np.isfinite(json.loads(line)["loss"]) for line in lines] == [True, True]


def test_a_hybrid_is_refused_before_anything_starts(
    dataset_of: Callable[[Method], Path], tmp_path: Path
) -> None:
    data = dataset_of(method_of("qhflow2_m"))
    flags = {"model.parity": "semilocal", "data.path": data, "out": tmp_path / "run"}
    config = settings_of("qhflow2_m", *[f"--{key}={value}" for key, value in flags.items()])
    with pytest.raises(ValueError, match=r"model.parity: got 'semilocal'.*b3lyp5.*set .* to full"):
        commands.pretrain(config)
    assert not (tmp_path / "run").exists()
