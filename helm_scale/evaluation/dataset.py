"""Evaluates every molecule of a split and writes report, pictures and extras into one folder.

report.json, report.md, error_by_*.png   errors of all molecules (molecule.py, report.py)
molecules/<key>.json                     results by molecule; a rerun reads them if the job is equal
hamiltonian.png, orbitals.png, cubes/    one molecule, drawn
stretch.json, stretch.png                one of its bonds, stretched
embedding.npz, embedding.png             node features of the backbone beside those of another
"""

import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.config import EvaluateConfig
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.dft import fields
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.evaluation import embedding, kohn_sham, orbitals, report, stretch, tables, verdict
from helm_scale.evaluation.kohn_sham import Choice
from helm_scale.evaluation.molecule import EvaluationJob, evaluate_molecules
from helm_scale.evaluation.plots.embedding import plot_embedding
from helm_scale.evaluation.plots.errors import plot_distances, plot_element_pairs
from helm_scale.evaluation.plots.fields import plot_fields
from helm_scale.evaluation.plots.hamiltonian import plot_hamiltonian
from helm_scale.evaluation.plots.stretch import plot_stretch
from helm_scale.evaluation.predictors import Predictor
from helm_scale.model.energy import EnergyModel
from helm_scale.types import Molecule
from helm_scale.units import HARTREE_IN_EV

SPACING = 0.2  # of cube files, Angstrom
EMBEDDED = 500  # molecules of the embedding map at most
DRAWN_ATOMS = 12  # the largest molecule up to this size is drawn


def evaluate_dataset(
    predictor: Predictor, other: EnergyModel | None, manifest: Manifest, config: EvaluateConfig
) -> str:
    """Evaluate a predictor on a split and write all files to config.out.

    Args:
        other: the backbone that the embedding map shows beside the predictor's; None where there is
            no map.
    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no such split or molecule, a molecule without label, or one that the predictor
            does not know.
    """
    started, out, reader = _seconds(), Path(config.out), ShardReader(manifest)
    choice = kohn_sham.choose(config.projection, error=predictor.error, basis=manifest.method.basis)
    # `or None`: a limit of 0 means all molecules.
    indices = manifest.split(config.split)[: config.max_molecules or None]
    # Before the hours of evaluation, so that a misspelt molecule key is refused at once.
    drawn = reader.read(_drawn(manifest, indices, config.molecule)) if config.extras else None
    jobs = _jobs(predictor, manifest, config=config, indices=indices, choice=choice)
    results = list(evaluate_molecules(jobs, config.processes, len(indices)))
    settings = {
        name: getattr(config, name) for name in ("source", "data", "split", "overlap_threshold")
    }
    about = settings | {
        "method": asdict(manifest.method),
        "model": predictor.about,
        "matrix": str(choice),
    }
    summary = report.build_report(results, about)
    sections = [tables.tables(summary)]
    _write_report(out, summary, sections[0])
    if drawn is not None and "orbitals" in config.extras:
        draw_molecule(predictor, drawn, manifest=manifest, config=config, choice=choice)
    if drawn is not None and "stretch" in config.extras and predictor.model is not None:
        table = _stretch(predictor, drawn, manifest=manifest, config=config, choice=choice)
        sections.append(table)
    if other is not None and predictor.model is not None:
        molecules = [reader.read(index) for index in range(min(len(manifest), EMBEDDED))]
        sections.append(
            map_backbones(
                predictor,
                other,
                molecules=molecules,
                out=out,
                name=f"other: {Path(config.other).name}" if config.other else "random weights",
            )
        )
    wall, processors = (now - then for now, then in zip(_seconds(), started, strict=True))
    sections.append(
        f"All of this took {wall:.0f} s on the clock and {processors:.0f} s of processor time,"
        f" {config.processes} processes.\n"
    )
    text = "\n".join(sections)
    (out / "report.md").write_text(text)
    return text


def _write_report(out: Path, summary: dict[str, Any], tables: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
    # The tables are written again with the extras; these survive if an extra fails.
    (out / "report.md").write_text(tables)
    plot_element_pairs(
        out / "error_by_element_pair.png",
        summary["by_element_onsite"],
        summary["by_element_pair_offsite"],
    )
    plot_distances(out / "error_by_distance.png", summary["by_distance_offsite"])


def _seconds() -> tuple[float, float]:
    """Wall time, and processor time of this process and its finished workers, in seconds."""
    # RUSAGE_CHILDREN counts a worker only once it has ended and been waited for.
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _jobs(
    predictor: Predictor,
    manifest: Manifest,
    *,
    config: EvaluateConfig,
    indices: np.ndarray,
    choice: Choice,
) -> Iterator[EvaluationJob]:
    """Predict molecule by molecule, as the processes ask; the first ones are judged deepest."""
    reader = ShardReader(manifest)
    # In the order of DEPTHS: a molecule beyond one limit is beyond all that follow.
    limits = {
        "orbitals": config.orbital_molecules,
        "energies": config.energy_molecules,
        "forces": config.force_molecules,
        "scf": config.scf_molecules,
    }
    for place, index in enumerate(indices):
        molecule, depth = reader.read(int(index)), "matrix"
        for name, limit in limits.items():
            if place >= (limit or len(indices)):
                break
            depth = name
        start = time.perf_counter()
        residual = predictor.residual(molecule)
        yield EvaluationJob(
            molecule=molecule,
            residual=residual,
            method=manifest.method,
            baseline=predictor.baseline,
            pair_cutoff=predictor.pair_cutoff,
            overlap_threshold=config.overlap_threshold,
            projected=choice.covers(molecule, manifest.method),
            depth=depth,
            inference_seconds=time.perf_counter() - start,
            record=Path(config.out) / "molecules" / f"{molecule.key}.json",
        )


def _drawn(manifest: Manifest, indices: np.ndarray, key: str | None) -> int:
    """Index of the molecule to draw: that of the key, else a large one with few enough atoms.

    Without a key it is the largest of at most DRAWN_ATOMS atoms, or if all have more, the smallest.
    """
    if key is None:
        atoms = manifest.atoms[indices]
        # The sign makes larger molecules compete for being smallest, below all that fit.
        return int(indices[np.argmax(np.where(atoms <= DRAWN_ATOMS, atoms, -atoms))])
    matches = [int(index) for index in indices if str(manifest.key[index]) == key]
    if not matches:
        raise ValueError(
            f"molecule: got '{key}', wanted one of the evaluated split, such as"
            f" '{manifest.key[indices[0]]}'"
        )
    return matches[0]


def draw_molecule(
    predictor: Predictor,
    molecule: Molecule,
    *,
    manifest: Manifest,
    config: EvaluateConfig,
    choice: Choice,
) -> None:
    """Draw the Hamiltonian and its error; write HOMO, LUMO and density error as cube files."""
    out, method = Path(config.out), manifest.method
    truth, predicted = molecule.hamiltonian, _complete(predictor, molecule, manifest)
    assert truth is not None
    plot_hamiltonian(
        out / "hamiltonian.png",
        molecule.key,
        atomic_numbers=molecule.atomic_numbers,
        basis=method.basis,
        truth=truth,
        predicted=predicted,
    )
    threshold = config.overlap_threshold or orbitals.chosen_threshold(
        float(np.abs(predicted - truth).mean())
    )
    if choice.covers(molecule, method):
        predicted = EnergyFunctional(molecule, method).kohn_sham_matrix(predicted)
        threshold = orbitals.PYSCF_THRESHOLD
    projector = orbitals.canonical_projectors(overlap(molecule, method.basis), (threshold,))[0]
    occupied = orbitals.occupied_count(molecule, method.basis)
    states = {
        name: orbitals.solve(matrix, projector, occupied)
        for name, matrix in (("pyscf", truth), ("model", predicted))
    }
    frontier: dict[str, np.ndarray] = {}
    for level, place in (("homo", occupied - 1), ("lumo", occupied)):
        target, predicted_orbital = (state.coefficients[:, place] for state in states.values())
        # The sign of an eigenvector is arbitrary; equal signs make the two pictures comparable.
        sign = np.sign(predicted_orbital @ projector.overlap @ target) or 1.0
        frontier |= {f"{level}_pyscf": target, f"{level}_model": sign * predicted_orbital}
    difference = states["model"].density_matrix() - states["pyscf"].density_matrix()
    cubes = fields.write_cubes(
        molecule,
        method.basis,
        orbitals=frontier,
        densities={"density_difference": difference},
        folder=out / "cubes",
        spacing=SPACING,
    )
    names = {"pyscf": "PySCF", "model": "model"}
    titles = [
        [
            (f"{level}_{whose}", f"{level.upper()}, {name}: {energy * HARTREE_IN_EV:.2f} eV")
            for level, energy in (("homo", states[whose].homo), ("lumo", states[whose].lumo))
        ]
        for whose, name in names.items()
    ]
    titles[0].append(("density_difference", "density, model - PySCF"))
    plot_fields(out / "orbitals.png", molecule, cubes, titles)


def _complete(predictor: Predictor, molecule: Molecule, manifest: Manifest) -> np.ndarray:
    """Predict H - H0 and add H0: that of the dataset where it is stored, else computed."""
    residual = predictor.residual(molecule)
    if predictor.baseline == "none":
        return residual
    base = molecule.baseline_hamiltonian
    return residual + (
        EnergyFunctional(molecule, manifest.method).baseline(predictor.baseline)
        if base is None
        else base
    )


def _stretch(
    predictor: Predictor,
    molecule: Molecule,
    *,
    manifest: Manifest,
    config: EvaluateConfig,
    choice: Choice,
) -> str:
    """Stretch one bond, write its files and return its table."""
    out = Path(config.out)
    bond = config.bond or stretch.longest_bond(molecule)
    if bond is None:
        return f"{molecule.key}: no bond outside rings to stretch.\n"
    settings = stretch.StretchJob(
        molecule=molecule,
        residual=np.zeros((0, 0)),  # `follow` predicts one for every length
        method=manifest.method,
        baseline=predictor.baseline,
        overlap_threshold=config.overlap_threshold,
        projected=choice.covers(molecule, manifest.method),
    )
    points, failed = stretch.follow(
        molecule, bond, predictor.residual, job=settings, processes=config.processes
    )
    title = stretch.title(molecule, bond)
    content: dict[str, Any] = {
        "molecule": molecule.key,
        "bond": bond,
        "units": "Hartree, Angstrom",
        "points": stretch.as_dict(points),
        "failed": failed,
    }
    (out / "stretch.json").write_text(json.dumps(content, indent=1) + "\n")
    if points:
        plot_stretch(out / "stretch.png", title, points)
    return f"{title}\n\n{stretch.table(points, failed)}"


def map_backbones(
    predictor: Predictor, other: EnergyModel, molecules: Sequence[Molecule], out: Path, name: str
) -> str:
    """Draw the node features of two backbones as maps and tabulate how they separate atoms."""
    assert predictor.model is not None
    # node_features takes an EnergyModel, which has the trunk of a Hamiltonian model.
    pretrained = EnergyModel(predictor.model.config).to(predictor.model.reference.device).eval()
    pretrained.trunk.load_state_dict(predictor.model.trunk.state_dict())
    features = {
        name: embedding.node_features(other, molecules),
        "pretrained": embedding.node_features(pretrained, molecules),
    }
    maps = {title: embedding.map_features(points) for title, points in features.items()}
    numbers = np.concatenate([molecule.atomic_numbers for molecule in molecules])
    names = embedding.environments(molecules)
    # By place, not by title: a title may hold characters that no archive member should.
    arrays = {f"pca_{place}": points.components for place, points in enumerate(maps.values())}
    arrays |= {
        f"umap_{place}": points.umap
        for place, points in enumerate(maps.values())
        if points.umap is not None
    }
    np.savez(
        out / "embedding.npz",
        backbones=np.array(list(maps)),
        atomic_numbers=numbers,
        environments=np.array(names),
        **arrays,  # type: ignore[arg-type]
    )
    plot_embedding(out / "embedding.png", maps, numbers, names)
    rows = [
        [
            title,
            *(
                verdict.number(100 * embedding.separation(points, labels))
                for labels in ([str(z) for z in numbers], names)
            ),
        ]
        for title, points in features.items()
    ]
    heads = ["backbone", "variance between elements / %", "variance between environments / %"]
    return (
        f"Node features (l = 0) of {len(numbers)} atoms.\n\n"
        + "\n".join(tables.grid(heads, rows))
        + "\n"
    )
