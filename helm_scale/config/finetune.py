"""Settings of finetuning, of the low-data protocol, and of exports."""

from typing import Literal

from pydantic import Field

from helm_scale.config.datasets import GenerateConfig
from helm_scale.config.model import HeadConfig
from helm_scale.config.pretrain import PretrainConfig
from helm_scale.config.strict import Strict


class FinetuneConfig(Strict):
    """Learn energies from few labels."""

    source: str = Field(
        "runs/bundle",
        description="run or bundle folder; gives the architecture, and the weights unless direct",
    )
    data: str = Field(
        "data_shards/quickstart",
        description="folder of shards, extended XYZ (.xyz, .extxyz) or ASE database (.db) with energies; eV, eV/Angstrom in the last two",
    )
    train_split: str = Field("train", description="split to train on")
    validation_split: str = Field(
        "validation", description="split that chooses the best step; absent: the last step is taken"
    )
    test_splits: tuple[str, ...] = Field(
        ("test",), min_length=1, description="splits to test on, [a, b]"
    )
    modes: tuple[Literal["direct", "frozen", "finetuned"], ...] = Field(
        ("direct", "frozen", "finetuned"), description="which of direct, frozen, finetuned to run"
    )
    sizes: tuple[int, ...] = Field(
        (),
        description="numbers of training molecules, [50, 200]: a learning curve; none: all of them",
    )
    seeds: tuple[int, ...] = Field(
        (0,),
        min_length=1,
        description="each draws a training set, an order and new weights, [0, 1, 2]",
    )
    head: HeadConfig = HeadConfig()
    head_start: Literal["fit", "zero"] = Field(
        "fit",
        description="linear part of the head before the first step: the best fit to the training molecules, or zero",
    )
    steps: int = Field(
        300,
        ge=0,
        description="optimiser steps per mode; 0: the head as it starts, on the features as they are",
    )
    batch_molecules: int = Field(8, ge=1, description="molecules per step")
    learning_rate: float = Field(
        2e-3, gt=0, description="peak rate of AdamW for the head and a random backbone"
    )
    backbone_learning_rate: float = Field(
        5e-4, gt=0, description="peak rate of AdamW for the last layer of a pretrained backbone"
    )
    layer_decay: float = Field(
        0.7,
        gt=0,
        le=1,
        description="rate of each part of a pretrained backbone over that of the next",
    )
    freeze_layers: int = Field(
        0,
        ge=0,
        description="finetuned: parts from below that stay as they are; 1: embeddings, 2: and layer 1, ...",
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    force_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the loss of forces beside that of energies, Angstrom; 0: no forces",
    )
    evaluations: int = Field(20, ge=1, description="looks at the validation molecules")
    patience: int = Field(
        0,
        ge=0,
        description="looks without improvement that end a run; 0: go on, the best step is kept anyway",
    )
    cache: str | None = Field(
        None,
        description="folder in which features of frozen backbones are kept; none: features in `out`",
    )
    out: str = Field(
        "runs/finetune", description="folder of tables, pictures, the report and the models"
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice")


class LowDataConfig(Strict):
    """Label molecules, pretrain on their Hamiltonians, learn energies from few of them."""

    labels: GenerateConfig = GenerateConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()


class ExportConfig(Strict):
    """Write or verify a bundle, which torch and safetensors load alone."""

    source: str = Field("runs/pretrain", description="run folder")
    out: str = Field("runs/bundle", description="bundle folder")
    verify: bool = Field(False, description="only verify the bundle at `out`")
