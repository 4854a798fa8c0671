"""What the model helm_small is worth on molecules that it has not seen, by size.

Per molecule: error of H; energy, HOMO, LUMO and dipole of the matrix in use against the labels;
cycles and seconds of PySCF's SCF from minao (its default) and from the model, whose seconds include
H0, the prediction and the projection. Means with 95 % confidence intervals by number of heavy
atoms, and the share of cycles and seconds saved.

    python benchmarks/helm_small.py [--model helm_small] [--data runs/helm_small/test] [--quick]
"""

import json
import time
from collections import defaultdict

import numpy as np
from report import command_line, report

from helm_scale.commands.models import load_predictor, validation_error
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.evaluation import kohn_sham, orbitals
from helm_scale.evaluation.prediction import predict_residual
from helm_scale.finetuning.tables import confidence_interval
from helm_scale.model.helm import Helm
from helm_scale.types import Method, Molecule
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE

SIZES = ((1, 4), (5, 7), (8, 9), (10, 14), (15, 20))  # heavy atoms, from and to


def main() -> None:
    """Judge every molecule of the test sets and print tables and JSON."""
    parser = command_line(__doc__, quick="four molecules")
    parser.add_argument("--model", default="helm_small")
    parser.add_argument("--data", nargs="+", default=["runs/helm_small/test"])
    arguments = parser.parse_args()
    model, method = load_predictor(arguments.model)
    choice = kohn_sham.choose("auto", error=validation_error(arguments.model), basis=method.basis)
    rows = []
    for molecule in _molecules(arguments.data, 4 if arguments.quick else None):
        rows.append(judge(model, molecule, method, projected=choice.projected))
        print(json.dumps(rows[-1]), flush=True)
    sizes = {name: _summary(group) for name, group in _by_size(rows).items()}
    for name, row in sizes.items():
        print(f"{name} heavy atoms: {row}")
    report("helm_small", model=arguments.model, matrix=str(choice), by_heavy_atoms=sizes)


def _molecules(folders: list[str], count: int | None) -> list[Molecule]:
    """Molecules of the splits "test", small ones first."""
    found: list[Molecule] = []
    for folder in folders:
        manifest = Manifest.load(folder)
        reader = ShardReader(manifest)
        found += [reader.read(int(index)) for index in manifest.split("test")]
    return sorted(found, key=lambda molecule: len(molecule.atomic_numbers))[:count]


def judge(
    model: Helm, molecule: Molecule, method: Method, *, projected: bool
) -> dict[str, float | str]:
    """Errors, cycles and seconds of one molecule."""
    assert molecule.hamiltonian is not None and molecule.energy is not None
    functional = EnergyFunctional(molecule, method)
    functional.prepare()  # both SCFs need grid and integrals
    projector = orbitals.canonical_projectors(
        overlap(molecule, method.basis), (orbitals.PYSCF_THRESHOLD,)
    )[0]
    occupied = orbitals.occupied_count(molecule, method.basis)
    begin = time.perf_counter()
    predicted = predict_residual(model, molecule, method) + functional.baseline("minao")
    used = functional.kohn_sham_matrix(predicted) if projected else predicted
    ours = orbitals.solve(used, projector, occupied)
    started = time.perf_counter() - begin
    plain = orbitals.solve(functional.baseline("minao"), projector, occupied)
    true = orbitals.solve(molecule.hamiltonian, projector, occupied)
    from_model = functional.scf(ours.density_matrix())
    from_minao = functional.scf(functional.guess("minao"))
    found: dict[str, float | str] = {
        "key": molecule.key,
        "heavy": int((molecule.atomic_numbers > 1).sum()),
        "h_mae_uEh": float(np.abs(predicted - molecule.hamiltonian).mean()) / MICROHARTREE,
        "cycles_model": from_model.cycles,
        "cycles_minao": from_minao.cycles,
        "seconds_start": started,
        "seconds_model": from_model.seconds + started,
        "seconds_minao": from_minao.seconds,
    }
    for name, state in (("model", ours), ("minao", plain)):
        density = state.density_matrix()
        energy = functional.energy_and_fock(density)[0]
        dipole = functional.dipole(density) - functional.dipole(true.density_matrix())
        found |= {
            f"energy_{name}_meV": abs(energy - molecule.energy) * HARTREE_IN_MEV,
            f"homo_{name}_meV": abs(state.homo - true.homo) * HARTREE_IN_MEV,
            f"lumo_{name}_meV": abs(state.lumo - true.lumo) * HARTREE_IN_MEV,
            f"dipole_{name}_D": float(np.linalg.norm(dipole)),
        }
    return found


def _by_size(rows: list[dict[str, float | str]]) -> dict[str, list[dict[str, float | str]]]:
    """Rows by number of heavy atoms, and all of them."""
    groups: dict[str, list[dict[str, float | str]]] = defaultdict(list)
    for low, high in SIZES:
        members = [row for row in rows if low <= int(row["heavy"]) <= high]
        if members:
            groups[f"{low} to {high}"] = members
    return groups


def _summary(rows: list[dict[str, float | str]]) -> dict[str, object]:
    """Means with half of their 95 % confidence intervals, and the shares saved in percent."""
    names = [name for name in rows[0] if name not in ("key", "heavy")]
    means = {
        name: [round(x, 3) for x in confidence_interval([float(row[name]) for row in rows])]
        for name in names
    }
    saved = {
        f"{what}_saved_percent": round(
            100 * (1 - means[f"{what}_model"][0] / means[f"{what}_minao"][0]), 1
        )
        for what in ("cycles", "seconds")
    }
    return {"molecules": len(rows), **saved, **means}


if __name__ == "__main__":
    main()
