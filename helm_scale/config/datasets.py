"""Settings of everything that makes, checks and rearranges datasets."""

from typing import Literal

from pydantic import Field, model_validator

from helm_scale.config.pretrain import PretrainConfig
from helm_scale.config.strict import Basis, Strict


class InfoConfig(PretrainConfig):
    """Say what a dataset holds and what training on it takes.

    The second needs a config of helm-scale pretrain and --ranks.
    """

    png: str = Field("", description="File that the histograms are drawn into. Empty: none.")
    samples: int = Field(
        64, ge=1, description="Molecules to read for what the manifest does not say."
    )
    cutoffs: tuple[float, ...] = Field(
        (),
        description=(
            "Report what lies beyond these distances, Angstrom: the error that"
            " model.pair_cutoff makes."
        ),
    )
    ranks: int = Field(
        0, ge=0, description="Plan memory and epochs of training on so many ranks. 0: no plan."
    )


class GenerateConfig(Strict):
    """Label molecules with PySCF and write a dataset."""

    xyz: str = Field(
        "molecules.xyz",
        description=(
            "Extended XYZ file; charge, multiplicity, key and split stand in its comment lines."
        ),
    )
    ignore_cell: bool = Field(
        False, description="Take molecules out of periodic cells, without their images."
    )
    out: str = Field("data_shards/new", description="New folder of shards with a manifest.json.")
    xc: str = Field("pbe", description="Exchange-correlation functional, by PySCF's name.")
    basis: Basis = Field("def2-tzvpd", description="Orbital basis. Its ECP is always applied.")
    grid_level: int = Field(3, ge=0, le=9, description="PySCF grid level.")
    auxbasis: str | None = Field(
        None,
        description=(
            "Density-fitting basis, for example def2-universal-jkfit. None: exact integrals."
        ),
    )
    conv_tol: float = Field(1e-10, gt=0, description="Energy threshold of the SCF, Hartree.")
    max_cycle: int = Field(100, ge=1, description="SCF cycles of one attempt.")
    scf_retries: tuple[Literal["level_shift", "second_order"], ...] = Field(
        ("level_shift", "second_order"),
        description=(
            "What is tried in turn where an SCF fails. []: the molecule is rejected at once."
        ),
    )
    baseline: Literal["none", "atoms", "minao"] = Field("none", description="Kind of H0 to store.")
    forces: bool = Field(True, description="Store forces.")
    dipole: bool = Field(False, description="Store the dipole moment.")
    overlap: bool = Field(False, description="Store the overlap.")
    licence: str = Field("CC0-1.0", description="Licence of the dataset, by SPDX name.")
    molecules_per_shard: int = Field(64, ge=1, description="Molecules per tar file.")
    processes: int = Field(2, ge=1, description="PySCF processes.")


class ImportConfig(Strict):
    """Turn a public dataset or a folder of npz files into a dataset."""

    dataset: str = Field("npz", description="Dataset to import, by the name of its importer.")
    source: str = Field("dataset.db", description="File of the dataset, or folder of npz files.")
    out: str = Field("data_shards/new", description="New folder of shards with a manifest.json.")
    split: str = Field(
        "none",
        description=(
            "Published division by name (docs/datasets.md), or none: all samples are for training."
        ),
    )
    samples: int = Field(
        0, ge=0, description="Import only so many samples, the first ones. 0: all."
    )
    exclude: tuple[str, ...] = Field(
        (),
        description=(
            "Samples to leave out, [a, b], named as messages name them. They are listed as"
            " rejected."
        ),
    )
    xc: str | None = Field(
        None,
        description="Exchange-correlation functional, by PySCF's name. None: the dataset's own.",
    )
    basis: Basis | None = Field(None, description="Orbital basis. None: the dataset's own.")
    auxbasis: str | None = Field(
        None, description="Density-fitting basis. None: the dataset's own."
    )
    grid_level: int | None = Field(
        None,
        ge=0,
        le=9,
        description="PySCF grid level of proofs and of H0. None: the dataset's own.",
    )
    program: str | None = Field(
        None, description="Program and version that made the labels. None: the dataset's own."
    )
    order: Literal["pyscf", "orca", "psi4"] = Field(
        "pyscf",
        description="Of npz files: program whose order of atomic orbitals the matrices have.",
    )
    licence: str | None = Field(None, description="Licence, by SPDX name. None: the dataset's own.")
    repair: bool = Field(
        True, description="Of omol-csh-58k: undo the release's defect of the diffuse shells."
    )
    baseline: Literal["none", "atoms", "minao"] = Field(
        "none", description="Kind of H0 to store; it is computed where the source has none."
    )
    overlap: bool = Field(False, description="Store the overlap, computed in float64.")
    proof_first: int = Field(
        4, ge=1, description="Samples that are proven before anything is written."
    )
    proof_share: float = Field(
        0.01, ge=0, le=1, description="Share of all samples that are proven while they are written."
    )
    proof_atoms: int = Field(
        20,
        ge=0,
        description=(
            "Most atoms of a molecule whose self-consistency is proven, which takes a Fock build."
        ),
    )
    consistency_limit: float | None = Field(
        None,
        gt=0,
        description="Largest mean |F[P(H)] - H| of a proof, Hartree. None: the dataset's own.",
    )
    molecules_per_shard: int = Field(64, ge=1, description="Molecules per tar file.")
    processes: int = Field(2, ge=1, description="Processes that convert samples.")


class SplitConfig(Strict):
    """Divide a dataset anew; like samples stay on one side."""

    folder: str = Field(
        "data_shards/new",
        description="Dataset. Its manifest is written anew; the old one is kept beside it.",
    )
    by: Literal["composition", "geometry"] = Field(
        "composition",
        description=(
            "Samples that stay together: those of one composition, charge and multiplicity, or"
            " near-duplicate geometries."
        ),
    )
    fractions: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="Shares of train, validation and test, [a, b, c]."
    )
    tolerance: float = Field(
        0.05,
        gt=0,
        description=(
            "Geometries count as near-duplicates where no sorted distance differs by more,"
            " Angstrom."
        ),
    )
    seed: int = Field(0, ge=0, description="Seed of the order in which groups are given to splits.")

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> "SplitConfig":
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"fractions: got {list(self.fractions)}, wanted three shares that sum to one"
            )
        return self


class LeaksConfig(Strict):
    """Find near-duplicates in different splits of a dataset."""

    folder: str = Field("data_shards/new", description="Folder of shards with a manifest.json.")
    tolerance: float = Field(
        0.05,
        gt=0,
        description=(
            "Geometries count as near-duplicates where no sorted distance differs by more,"
            " Angstrom."
        ),
    )


class RepackConfig(Strict):
    """Write a dataset anew in shards of another size."""

    folder: str = Field("data_shards/new", description="Folder of shards with a manifest.json.")
    out: str = Field(
        "data_shards/repacked", description="New folder of shards with a manifest.json."
    )
    molecules_per_shard: int = Field(64, ge=1, description="Molecules per tar file.")


class VerifyConfig(Strict):
    """Check every byte and every sample of a dataset."""

    folder: str = Field("data_shards/new", description="Folder of shards with a manifest.json.")


class ConcatConfig(Strict):
    """Join datasets of one method into a new one."""

    out: str = Field("data_shards/joined", description="New folder of shards with a manifest.json.")
    folders: tuple[str, ...] = Field((), description="Datasets to join, [a, b].")
