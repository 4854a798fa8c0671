"""Settings of evaluation and prediction."""

from typing import Literal

from pydantic import Field

from helm_scale.config.strict import Strict


class EvaluateConfig(Strict):
    """Compare predicted Hamiltonians, orbitals and energies with the labels."""

    source: str = Field(
        "runs/pretrain",
        description="run folder, bundle folder, or folder of anybody's <key>.npz with a Hamiltonian each",
    )
    ao_order: Literal["canonical", "pyscf", "orca", "psi4"] | None = Field(
        None, description="AO order of a folder of npz files that do not name it themselves"
    )
    data: str = Field("data_shards/quickstart", description="folder of shards with a manifest.json")
    split: str = Field("test", description="split to evaluate")
    out: str = Field(
        "runs/evaluation",
        description="folder of report.json, tables, pictures and cube files; a rerun resumes",
    )
    max_molecules: int = Field(
        0, ge=0, description="evaluate at most so many molecules; 0 means all"
    )
    orbital_molecules: int = Field(
        0, ge=0, description="compute orbitals of at most so many; 0 means all"
    )
    energy_molecules: int = Field(
        0,
        ge=0,
        description="of these, energies, dipoles and a Fock rebuild of at most so many; 0 means all",
    )
    force_molecules: int = Field(
        0, ge=0, description="of these, forces of at most so many; 0 means all"
    )
    scf_molecules: int = Field(
        4,
        ge=0,
        description="of these, SCF from four initial densities for at most so many; 0 means all",
    )
    overlap_threshold: float | None = Field(
        None,
        gt=0,
        description="canonical orthogonalisation drops overlap eigenvalues below this; null: 15 times the error of H in Hartree",
    )
    extras: tuple[Literal["orbitals", "stretch", "embedding"], ...] = Field(
        ("orbitals", "stretch", "embedding"),
        description="pictures and cube files of one molecule, a bond of it stretched, map of features",
    )
    molecule: str | None = Field(
        None,
        description="key of the molecule that is drawn and stretched; null: the largest of at most 12 atoms",
    )
    bond: tuple[int, int] | None = Field(
        None, description="the bond that is stretched, atoms from 0; null: the longest"
    )
    other: str | None = Field(
        None,
        description="run, bundle or finetuned model of the same architecture beside which features are mapped; null: random weights",
    )
    flow_steps: int = Field(
        0, ge=0, description="Euler steps of a flow model; 0: as it was trained"
    )
    processes: int = Field(2, ge=1, description="PySCF processes")


class PredictConfig(Strict):
    """Predict Hamiltonians of molecules without labels."""

    source: str = Field("runs/pretrain", description="run folder or bundle folder")
    xyz: str = Field("molecules.xyz", description="extended XYZ; charge and multiplicity from info")
    out: str = Field("runs/prediction", description="folder of npz files")
    overlap_threshold: float = Field(
        1e-3,
        gt=0,
        description="canonical orthogonalisation drops overlap eigenvalues below this; ten times the error of H in Hartree",
    )
    flow_steps: int = Field(
        0, ge=0, description="Euler steps of a flow model; 0: as it was trained"
    )
    processes: int = Field(2, ge=1, description="PySCF processes")
