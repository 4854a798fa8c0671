"""Settings of evaluation and prediction."""

from typing import Literal

from pydantic import Field

from helm_scale.config.strict import Strict


class EvaluateConfig(Strict):
    """Compare predicted Hamiltonians, orbitals and energies with the labels."""

    source: str = Field(
        "runs/pretrain",
        description=(
            "Run folder, bundle folder, or folder of <key>.npz files from any program, each"
            " with a Hamiltonian."
        ),
    )
    ao_order: Literal["canonical", "pyscf", "orca", "psi4"] | None = Field(
        None,
        description="Order of the atomic orbitals in npz files that do not name it themselves.",
    )
    data: str = Field(
        "data_shards/quickstart", description="Folder of shards with a manifest.json."
    )
    split: str = Field("test", description="Split to evaluate.")
    out: str = Field(
        "runs/evaluation",
        description=(
            "Folder of report.json, tables, pictures and cube files. Another run of the command"
            " resumes."
        ),
    )
    max_molecules: int = Field(0, ge=0, description="Evaluate at most so many molecules. 0: all.")
    orbital_molecules: int = Field(
        0, ge=0, description="Compute orbitals of at most so many molecules. 0: all."
    )
    energy_molecules: int = Field(
        0,
        ge=0,
        description=(
            "Of these, compute energy and dipole and rebuild the Fock matrix of at most so"
            " many. 0: all."
        ),
    )
    force_molecules: int = Field(
        0, ge=0, description="Of these, compute the forces of at most so many. 0: all."
    )
    scf_molecules: int = Field(
        4,
        ge=0,
        description="Of these, run SCF from four initial densities for at most so many. 0: all.",
    )
    overlap_threshold: float | None = Field(
        None,
        gt=0,
        description=(
            "Canonical orthogonalisation drops overlap eigenvalues below this. Null: 15 times"
            " the error of H in Hartree."
        ),
    )
    projection: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "Project predictions onto Kohn-Sham matrices. auto: where the error of the model is"
            " larger than what the projection costs."
        ),
    )
    extras: tuple[Literal["orbitals", "stretch", "embedding"], ...] = Field(
        ("orbitals", "stretch", "embedding"),
        description=(
            "Extra pictures: orbitals and cube files of one molecule, a stretch of one of its"
            " bonds, and a map of features."
        ),
    )
    molecule: str | None = Field(
        None,
        description=(
            "Key of the molecule that is drawn and stretched. Null: the largest of at most 12"
            " atoms."
        ),
    )
    bond: tuple[int, int] | None = Field(
        None,
        description="Bond that is stretched: two atoms, counted from 0. Null: the longest bond.",
    )
    other: str | None = Field(
        None,
        description=(
            "Run, bundle or finetuned model of the same architecture whose features are mapped"
            " beside. Null: random weights."
        ),
    )
    flow_steps: int = Field(
        0, ge=0, description="Euler steps of a flow model. 0: as it was trained."
    )
    processes: int = Field(2, ge=1, description="PySCF processes.")


class PredictConfig(Strict):
    """Predict Hamiltonians of molecules without labels."""

    source: str = Field("runs/pretrain", description="Run folder or bundle folder.")
    xyz: str = Field(
        "molecules.xyz",
        description="Extended XYZ file; charge and multiplicity stand in its comment lines.",
    )
    ignore_cell: bool = Field(
        False, description="Take molecules out of periodic cells, without their images."
    )
    allow_extrapolation: bool = Field(
        False,
        description="Take elements, charges, sizes and compositions that training did not show.",
    )
    out: str = Field("runs/prediction", description="Folder of npz files.")
    projection: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "Project predictions onto Kohn-Sham matrices. auto: where the error of the model is"
            " larger than what the projection costs."
        ),
    )
    overlap_threshold: float = Field(
        1e-3,
        gt=0,
        description=(
            "For matrices that are not projected: canonical orthogonalisation drops overlap"
            " eigenvalues below this; ten times the error of H in Hartree is a good choice."
        ),
    )
    flow_steps: int = Field(
        0, ge=0, description="Euler steps of a flow model. 0: as it was trained."
    )
    processes: int = Field(2, ge=1, description="PySCF processes.")


class SummaryConfig(Strict):
    """Say in a few lines what the reports of evaluations and finetunings found."""

    folder: str = Field(
        "runs/quickstart",
        description="The `out` of an evaluation or finetuning, or a folder that holds several.",
    )
