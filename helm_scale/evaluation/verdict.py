"""What an evaluation says in words: the verdict, and warnings of what spoils its tables."""

from typing import Any

from helm_scale.evaluation.orbitals import LARGEST_THRESHOLD
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE

KCAL_PER_MOL_IN_MEV = 43.3641  # 1 kcal/mol, which chemists call chemical accuracy
_ORBITAL_ENERGY = KCAL_PER_MOL_IN_MEV / HARTREE_IN_MEV / MICROHARTREE
# Quantity of the report -> what 1 kcal/mol (per Angstrom) is in its unit
CHEMICAL_ACCURACY = {
    "energy_mae_meV": KCAL_PER_MOL_IN_MEV,
    "forces_mae_meV_per_angstrom": KCAL_PER_MOL_IN_MEV,
    **dict.fromkeys(
        ("occupied_energy_mae_uEh", "homo_mae_uEh", "lumo_mae_uEh", "gap_mae_uEh"), _ORBITAL_ENERGY
    ),
}
LABEL_LIMIT = 1.0  # meV between a stored energy and that of the stored H


def number(value: float | None) -> str:
    """Three digits, whole with commas from 1,000; an empty cell where nothing was measured."""
    if value is None:
        return ""
    if 99.5 <= value < 100:  # percent of overlap, where the distance from 100 is what counts
        return f"{value:.4f}"
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    if abs(value) >= 999.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    # "#" keeps trailing zeros, which are digits too; the point that it leaves in "123." goes.
    return f"{value:#.3g}".rstrip(".")


def verdict(report: dict[str, Any]) -> str:
    """Say how good the matrices in use are: against minao, chemical accuracy and minao's SCF."""
    rows = report["rows"]
    used = "kohn_sham" if "kohn_sham" in rows else "prediction"
    sentences = [
        *_of_hamiltonian(rows),
        *_of_energy(rows, used),
        *_of_forces(rows, used),
        *_of_scf(report["scf"], used),
    ]
    return " ".join(sentences)


def warnings(report: dict[str, Any]) -> list[str]:
    """What makes a reader distrust some of the tables, with a remedy where there is one."""
    scf = report["scf"] or {"not_converged": [], "other_energy": []}
    found = [*_ghosts(report), *_labels(report["rows"].get("truth", {}))]
    for what, keys in (
        ("the SCF did not converge from every density", scf["not_converged"]),
        ("other final energy", scf["other_energy"]),
    ):
        found += [f"WARNING: {what}: {', '.join(keys)}."] if keys else []
    return found


def _of_hamiltonian(rows: dict[str, Any]) -> list[str]:
    name = "hamiltonian_mae_over_molecules_uEh"
    # As predicted: only these rows are over all molecules
    ours, minao = rows["prediction"][name], rows.get("minao", {}).get(name)
    if minao is None:
        return [f"H: mean error {number(ours)} uEh."]
    relation = "no better than" if ours >= minao else f"{number(minao / ours)} times less than"
    return [f"H: mean error {number(ours)} uEh, {relation} H0 from minao ({number(minao)} uEh)."]


def _of_energy(rows: dict[str, Any], used: str) -> list[str]:
    name = "energy_mae_meV"
    if name not in rows[used]:
        return []
    ours, minao = rows[used][name], rows.get("minao", {}).get(name)
    if ours <= KCAL_PER_MOL_IN_MEV:
        judged = "chemically accurate (1 kcal/mol is 43 meV)"
    else:
        judged = f"{number(ours / KCAL_PER_MOL_IN_MEV)} times chemical accuracy (43 meV)"
    against = ""
    if minao is not None:
        relation = "better" if ours < minao else "no better"
        against = f", {relation} than one Fock build from minao ({number(minao)} meV)"
    rebuilt = rows.get("rebuilt" if used == "prediction" else f"{used}_rebuilt", {}).get(name)
    after = "" if rebuilt is None else f"; {number(rebuilt)} meV after one Fock rebuild"
    return [f"Energies: mean error {number(ours)} meV, {judged}{against}{after}."]


def _of_forces(rows: dict[str, Any], used: str) -> list[str]:
    name = "forces_mae_meV_per_angstrom"
    if name not in rows[used]:
        return []
    ours, minao = rows[used][name], rows.get("minao", {}).get(name)
    against = "" if minao is None else f" (minao: {number(minao)})"
    return [f"Forces: {number(ours)} meV/A{against}."]


def _of_scf(scf: dict[str, Any] | None, used: str) -> list[str]:
    cycles = scf["cycles"] if scf else {}
    ours, minao = (cycles.get(used) or cycles.get("prediction"), cycles.get("minao"))
    if ours is None or minao is None:
        return []
    saved = minao - ours
    gain = f"{number(saved)} saved" if saved > 0 else "nothing saved"
    return [f"SCF: {number(ours)} cycles against {number(minao)} from minao, {gain}."]


def _labels(truth: dict[str, float]) -> list[str]:
    difference = truth.get("energy_mae_meV", 0.0)
    if difference <= LABEL_LIMIT:
        return []
    return [
        f"WARNING: stored energies differ from those of the stored H by {number(difference)} meV:"
        " labels that are not converged, or of another method."
    ]


def _ghosts(report: dict[str, Any]) -> list[str]:
    """Say what to do about ghosts that are left after the projection."""
    if not report["rows"]["prediction"].get("ghosts_per_molecule"):
        return []
    judged = [found for found in report["by_molecule"].values() if "occupied" in found]
    if all(found.get("kohn_sham", {}).get("ghosts_per_molecule") == 0 for found in judged):
        return ["The raw prediction has ghosts, and its rows of orbitals, E and F mean little."]
    threshold = report["projection"]["threshold_largest"]
    remedy = (
        f"raise overlap_threshold above {threshold:.1e}, or leave it out to have it chosen from the"
        " error of H"
    )
    if threshold >= LARGEST_THRESHOLD:
        remedy = "the error of H is too large to tell which orbitals are occupied"
    return [
        "WARNING: ghosts among the predicted occupied orbitals: orbital energies, E and F of"
        f" these molecules mean little; {remedy}."
    ]
