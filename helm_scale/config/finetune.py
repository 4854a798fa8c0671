"""Settings of finetuning, of the low-data protocol, and of exports."""

from typing import Literal

from pydantic import Field, model_validator

from helm_scale.config.datasets import GenerateConfig
from helm_scale.config.model import HeadConfig
from helm_scale.config.pretrain import PretrainConfig
from helm_scale.config.strict import Strict


class FinetuneConfig(Strict):
    """Learn energies, forces or dipoles from few labels."""

    source: str = Field(
        "runs/bundle",
        description=(
            "Run or bundle folder. Gives the architecture and, except in mode direct, the weights."
        ),
    )
    data: str = Field(
        "data_shards/quickstart",
        description=(
            "Labelled molecules: folder of shards, extended XYZ (.xyz, .extxyz) or ASE database"
            " (.db). The last two hold eV, eV/Angstrom and e*Angstrom unless a key below or the"
            " database's metadata say otherwise."
        ),
    )
    energy_unit: Literal["eV", "Hartree", "kcal/mol", "kJ/mol"] | None = Field(
        None,
        description=(
            "Unit of the energies of an XYZ file or ASE database. None: that of the database's"
            " metadata, else eV."
        ),
    )
    force_unit: (
        Literal[
            "eV/Angstrom",
            "Hartree/Angstrom",
            "kcal/mol/Angstrom",
            "kJ/mol/Angstrom",
            "eV/bohr",
            "Hartree/bohr",
            "kcal/mol/bohr",
            "kJ/mol/bohr",
        ]
        | None
    ) = Field(
        None,
        description=(
            "Unit of the forces there. None: that of the metadata, else the unit of energy per"
            " Angstrom."
        ),
    )
    energy_kind: Literal["total", "relative"] = Field(
        "total",
        description=(
            "total: energies are held against those of free atoms, which tells a wrong unit."
            " relative: they are not, as for formation or atomisation energies."
        ),
    )
    e0s: str | None = Field(
        None,
        description=(
            "Energies of free atoms, in `energy_unit`: JSON file or text, by atomic number or"
            " symbol. None: those of IsolatedAtom frames, the others fitted."
        ),
    )
    ignore_cell: bool = Field(
        False, description="Take molecules out of periodic cells, without their images."
    )
    target: str = Field(
        "energy",
        description=(
            "What is learned: energy, forces (with energies), dipole, or another head of"
            " helm_scale/model/heads."
        ),
    )
    train_split: str = Field("train", description="Split to train on.")
    validation_split: str = Field(
        "validation",
        description=(
            "Split that chooses the best step. Where it is absent, the last step is taken."
        ),
    )
    test_splits: tuple[str, ...] = Field(
        ("test",), min_length=1, description="Splits to test on, [a, b]."
    )
    modes: tuple[Literal["direct", "frozen", "finetuned"], ...] = Field(
        ("direct", "frozen", "finetuned"),
        description=(
            "Modes to run: direct (random backbone), frozen (pretrained, only the head learns),"
            " finetuned (pretrained, all of it learns)."
        ),
    )
    sizes: tuple[int, ...] = Field(
        (),
        description=(
            "Numbers of training molecules for a learning curve, [50, 200]. None: all of them."
        ),
    )
    seeds: tuple[int, ...] = Field(
        (0,),
        min_length=1,
        description=(
            "Each seed draws a training set, an order of samples and new weights, [0, 1, 2]."
        ),
    )
    head: HeadConfig = HeadConfig()
    head_start: Literal["fit", "zero"] = Field(
        "fit",
        description=(
            "Linear part of the head before the first step: the best fit to the training"
            " molecules, or zero."
        ),
    )
    steps: int = Field(
        300,
        ge=0,
        description=(
            "Optimiser steps per mode. 0: the head as it starts, on the features as they are."
        ),
    )
    batch_molecules: int = Field(8, ge=1, description="Molecules per optimiser step.")
    learning_rate: float = Field(
        2e-3,
        gt=0,
        description="Peak learning rate of AdamW for the head and for a random backbone.",
    )
    backbone_learning_rate: float = Field(
        5e-4,
        gt=0,
        description="Peak learning rate of AdamW for the last layer of a pretrained backbone.",
    )
    layer_decay: float = Field(
        0.7,
        gt=0,
        le=1,
        description=(
            "Factor between the rate of each part of a pretrained backbone and that of the part"
            " above."
        ),
    )
    freeze_layers: int = Field(
        0,
        ge=0,
        description=(
            "Mode finetuned: parts from below that stay as they are. 1: embeddings; 2: and"
            " layer 1; and so on."
        ),
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    force_weight: float | None = Field(
        None,
        gt=0,
        description=(
            "Target forces: weight of their loss beside that of energies, Angstrom. None: 1."
        ),
    )
    evaluations: int = Field(
        20, ge=1, description="How often the validation molecules are evaluated in a run."
    )
    patience: int = Field(
        0,
        ge=0,
        description=(
            "Evaluations without improvement that end a run. 0: go on; the best step is kept"
            " anyway."
        ),
    )
    cache: str | None = Field(
        None,
        description=(
            "Folder in which features of frozen backbones are kept. None: the folder features"
            " in `out`."
        ),
    )
    out: str = Field(
        "runs/finetune", description="Folder of tables, pictures, the report and the models."
    )
    threads: int = Field(0, ge=0, description="CPU threads. 0: as torch chooses.")

    @model_validator(mode="after")
    def _forces_are_the_target(self) -> "FinetuneConfig":
        if self.force_weight is not None and self.target != "forces":
            raise ValueError(
                f"force_weight: got {self.force_weight}, but target is {self.target};"
                " set target: forces"
            )
        return self

    @property
    def weight_of_forces(self) -> float:
        """Weight of the loss of forces beside that of energies, Angstrom; 0: not learned."""
        if self.target != "forces":
            return 0.0
        return 1.0 if self.force_weight is None else self.force_weight


class LowDataConfig(Strict):
    """Label molecules, pretrain on their Hamiltonians, learn energies from few of them."""

    labels: GenerateConfig = GenerateConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()


class ExportConfig(Strict):
    """Write or verify a bundle, which torch and safetensors load alone."""

    source: str = Field("runs/pretrain", description="Run folder.")
    out: str = Field("runs/bundle", description="Bundle folder.")
    verify: bool = Field(False, description="Only verify the bundle at `out`.")
