"""Does a loss that knows S help?

Finetuning on 20 def2-TZVPD molecules, with and without it, from the same weights. Molecules come
from data_shards/quickstart, S is added. Per seed one model learns H - H0 (minao), then goes on for
as many steps again in three ways: the plain loss, with the error in the Loewdin basis, with that of
orbital energies. Judged by H MAE and by the orbital energies that the predicted H really has, on
the 20 molecules.

    python benchmarks/spectral_loss.py [--quick]
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from report import command_line, report

from helm_scale import commands
from helm_scale.basis.layout import ao_offsets
from helm_scale.config import PretrainConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter
from helm_scale.dft.energies import overlap
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.prediction import predict_residual
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule

KEYS = [
    "H2O",
    "CH4",
    "NH3",
    "C2H2",
    "CH3OH",
    "CH3Cl",
    "CO2",
    "HCN",
    "N2O",
    "H2O2",
    "SO2",
    "PH3",
    "SiH4",
    "HOCl",
    "LiF",
    "OH-",
    "NH4+",
    "GeH4",
    "HI",
    "AgH",
]
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "loewdin": ["--training.loewdin_weight", "1e-3"],
    "orbitals": ["--training.orbital_weight", "0.3"],
}
MODEL = {
    "baseline": "minao",
    "channels": 16,
    "hidden_channels": 16,
    "edge_channels": 32,
    "num_layers": 2,
    "radial_functions": 32,
    "pair_cutoff": 12.0,
}
THRESHOLD = 1e-3  # eigenvalues of S below it are dropped, for the label and the prediction alike


def write_data(out: Path) -> list[Molecule]:
    """The molecules with S; training and validation split are the same."""
    manifest = Manifest.load("data_shards/quickstart")
    reader = ShardReader(manifest)
    writer = ShardWriter(
        out,
        manifest.method,
        licence=manifest.licence,
        source=str(manifest.folder),
        molecules_per_shard=len(KEYS),
    )
    place = {str(key): index for index, key in enumerate(manifest.key)}
    molecules = [reader.read(place[key]) for key in KEYS]
    molecules = [
        replace(molecule, overlap=overlap(molecule, manifest.method.basis))
        for molecule in molecules
    ]
    for molecule in molecules:
        writer.write(molecule, "train")
    writer.close()
    return molecules


def judge(model: Helm, molecules: list[Molecule]) -> dict[str, float]:
    """Means over molecules, 1e-6 Eh: H, occupied orbital energies, HOMO and LUMO."""
    rows = []
    for molecule in molecules:
        assert (
            molecule.hamiltonian is not None
            and molecule.baseline_hamiltonian is not None
            and molecule.overlap is not None
        )
        predicted = predict_residual(model, molecule) + molecule.baseline_hamiltonian
        projector = orbitals.canonical_projectors(molecule.overlap, (THRESHOLD,))[0]
        occupied = orbitals.occupied_count(molecule, model.config.basis)
        states = [
            orbitals.solve(h, projector, occupied).energies[: occupied + 1]
            for h in (predicted, molecule.hamiltonian)
        ]
        error = np.abs(states[0] - states[1])
        rows.append(
            [
                np.abs(predicted - molecule.hamiltonian).mean(),
                error[:occupied].mean(),
                error[occupied - 1],
                error[occupied],
            ]
        )
    means = 1e6 * np.mean(rows, axis=0)
    return {
        name: round(float(x), 2)
        for name, x in zip(("h_mae", "occupied", "homo", "lumo"), means, strict=True)
    }


def train(run: Path, data: Path, *, seed: int, steps: int, extra: Sequence[str] = ()) -> Helm:
    """Train, or go on with a run, to so many steps."""
    settings = {
        "out": run,
        "data.path": data,
        "data.validation_split": "train",
        "training.seed": seed,
        "training.steps": steps,
        "training.batch_molecules": 10,
        "training.warmup_steps": 20,
        "execution.threads": 1,
        "execution.progress": False,
        "execution.checkpoint_every": 10**6,
        "execution.validate_every": 10**6,
        "allow_config_change": True,
        **{f"model.{name}": value for name, value in MODEL.items()},
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    commands.pretrain(load(PretrainConfig, [*flags, *extra]))
    return commands.load_model(run)[0]


def train_all(root: Path, seed: int, steps: int) -> Iterator[tuple[str, Helm]]:
    """The model of a seed before, then after as many steps again with every loss."""
    data, start = root / "data", root / f"start-{seed}"
    yield "before", train(start, data, seed=seed, steps=steps)
    for variant, extra in VARIANTS.items():
        run = root / f"{variant}-{seed}"
        shutil.copytree(start, run)
        yield variant, train(run, data, seed=seed, steps=2 * steps, extra=extra)


def main() -> None:
    """All seeds and ways in turn; the last line is one JSON object."""
    parser = command_line(__doc__, quick="one seed, 4 steps")
    parser.add_argument("--steps", type=int, default=60, help="steps of each of both halves")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    steps, seeds = (2, [0]) if arguments.quick else (arguments.steps, arguments.seeds)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        molecules = write_data(Path(folder) / "data")
        for seed in seeds:
            for loss, model in train_all(Path(folder), seed, steps):
                rows.append({"seed": seed, "loss": loss, **judge(model, molecules)})
                print(rows[-1], flush=True)
    aos = sum(int(ao_offsets("def2-tzvpd", molecule.atomic_numbers)[-1]) for molecule in molecules)
    report("spectral_loss", molecules=len(KEYS), aos=aos, steps=steps, units="1e-6 Eh", rows=rows)


if __name__ == "__main__":
    main()
