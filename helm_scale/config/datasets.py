"""Settings of everything that makes, checks and rearranges datasets."""

from typing import Literal

from pydantic import Field, model_validator

from helm_scale.config.pretrain import PretrainConfig
from helm_scale.config.strict import Strict


class InfoConfig(PretrainConfig):
    """Say what a dataset holds and what training on it takes.

    The second needs a config of helm-scale pretrain and --ranks.
    """

    png: str = Field("", description="draw the histograms into this file")
    samples: int = Field(64, ge=1, description="molecules read for what the manifest does not say")
    cutoffs: tuple[float, ...] = Field(
        (),
        description="say what lies beyond these distances, Angstrom: the error of model.pair_cutoff",
    )
    ranks: int = Field(
        0, ge=0, description="plan memory and epochs of training on so many ranks; 0: no plan"
    )


class GenerateConfig(Strict):
    """Label molecules with PySCF and write a dataset."""

    xyz: str = Field(
        "molecules.xyz", description="extended XYZ; charge, multiplicity, key and split from info"
    )
    out: str = Field("data_shards/new", description="folder of shards and manifest.json")
    xc: str = Field("pbe", description="exchange-correlation functional, PySCF's name")
    basis: Literal["def2-tzvpd", "def2-svp"] = Field(
        "def2-tzvpd", description="orbital basis; its ECP is always applied"
    )
    grid_level: int = Field(3, ge=0, le=9, description="PySCF grid level")
    auxbasis: str | None = Field(
        None, description="density-fitting basis, e.g. def2-universal-jkfit; none: exact integrals"
    )
    conv_tol: float = Field(1e-10, gt=0, description="SCF threshold, Hartree")
    max_cycle: int = Field(100, ge=1, description="SCF cycles before a molecule is rejected")
    baseline: Literal["none", "atoms", "minao"] = Field("none", description="store H0 of this kind")
    forces: bool = Field(True, description="store forces")
    overlap: bool = Field(False, description="store the overlap")
    licence: str = Field("CC0-1.0", description="licence of the dataset, SPDX name")
    molecules_per_shard: int = Field(64, ge=1, description="molecules per tar file")
    processes: int = Field(2, ge=1, description="PySCF processes")


class ImportConfig(Strict):
    """Turn a public dataset or a folder of npz files into a dataset."""

    dataset: Literal["md17", "qh9-stable", "qh9-dynamic", "nabla-dft", "omol-csh-58k", "npz"] = (
        Field("npz", description="which dataset")
    )
    source: str = Field("dataset.db", description="its file, or the folder of npz files")
    out: str = Field("data_shards/new", description="folder of shards and manifest.json")
    split: str = Field(
        "none", description="published division by name (docs/datasets.md), or none: all is train"
    )
    samples: int = Field(0, ge=0, description="import at most so many, the first; 0 means all")
    exclude: tuple[str, ...] = Field(
        (),
        description="samples to leave out, [a, b], named as messages name them; listed as rejected",
    )
    xc: str | None = Field(None, description="functional, PySCF's name; none: the dataset's own")
    basis: Literal["def2-tzvpd", "def2-svp"] | None = Field(
        None, description="orbital basis; none: the dataset's own"
    )
    auxbasis: str | None = Field(None, description="density-fitting basis; none: the dataset's own")
    grid_level: int | None = Field(
        None, ge=0, le=9, description="PySCF grid level of proofs and H0; none: the dataset's own"
    )
    program: str | None = Field(
        None, description="program and version that made the labels; none: the dataset's own"
    )
    order: Literal["pyscf", "orca", "psi4"] = Field(
        "pyscf", description="npz: program whose AO order the matrices have"
    )
    licence: str | None = Field(None, description="SPDX name; none: the dataset's own")
    repair: bool = Field(
        True, description="omol-csh-58k: undo the release's defect of the diffuse shells"
    )
    baseline: Literal["none", "atoms", "minao"] = Field(
        "none", description="store H0 of this kind, computed where the source has none"
    )
    overlap: bool = Field(False, description="store the overlap, computed in float64")
    proof_first: int = Field(4, ge=1, description="samples proven before anything is written")
    proof_share: float = Field(
        0.01, ge=0, le=1, description="share of all samples proven while they are written"
    )
    proof_atoms: int = Field(
        20,
        ge=0,
        description="larger molecules go without the proof of consistency, which builds a Fock matrix",
    )
    consistency_limit: float | None = Field(
        None, gt=0, description="largest mean |F[P(H)] - H|, Hartree; none: the dataset's own"
    )
    molecules_per_shard: int = Field(64, ge=1, description="molecules per tar file")
    processes: int = Field(2, ge=1, description="processes")


class SplitConfig(Strict):
    """Divide a dataset anew; like samples stay on one side."""

    folder: str = Field(
        "data_shards/new",
        description="dataset; its manifest is written anew, the old one kept beside it",
    )
    by: Literal["composition", "geometry"] = Field(
        "composition",
        description="like are samples of one composition, charge and multiplicity, or near-duplicate geometries",
    )
    fractions: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="shares of train, validation and test, [a, b, c]"
    )
    tolerance: float = Field(
        0.05, gt=0, description="near-duplicate: no sorted distance differs by more, Angstrom"
    )
    seed: int = Field(0, ge=0, description="seed of the order in which groups are given to splits")

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> "SplitConfig":
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"fractions: got {list(self.fractions)}, wanted three shares that sum to one"
            )
        return self


class LeaksConfig(Strict):
    """Find near-duplicates in different splits of a dataset."""

    folder: str = Field("data_shards/new", description="dataset")
    tolerance: float = Field(
        0.05, gt=0, description="near-duplicate: no sorted distance differs by more, Angstrom"
    )


class RepackConfig(Strict):
    """Write a dataset anew in shards of another size."""

    folder: str = Field("data_shards/new", description="dataset")
    out: str = Field("data_shards/repacked", description="new folder of shards and manifest.json")
    molecules_per_shard: int = Field(64, ge=1, description="molecules per tar file")


class VerifyConfig(Strict):
    """Check every byte and every sample of a dataset."""

    folder: str = Field("data_shards/new", description="dataset")


class ConcatConfig(Strict):
    """Join datasets of one method into a new one."""

    out: str = Field("data_shards/joined", description="new folder of shards and manifest.json")
    folders: tuple[str, ...] = Field((), description="datasets to join, [a, b]")
