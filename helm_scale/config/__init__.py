"""Settings of every command, and how they are read."""

from helm_scale.config.data import DataConfig
from helm_scale.config.datasets import (
    GenerateConfig,
    ImportConfig,
    InfoConfig,
    LeaksConfig,
    RepackConfig,
    SplitConfig,
)
from helm_scale.config.evaluate import EvaluateConfig, PredictConfig
from helm_scale.config.finetune import ExportConfig, FinetuneConfig, LowDataConfig
from helm_scale.config.model import EnergyHeadConfig, ModelConfig
from helm_scale.config.pretrain import ExecutionConfig, PretrainConfig, ReplayConfig, TrainingConfig
from helm_scale.config.reading import dump, help_text, launch, load, parse
from helm_scale.config.records import FORMAT, read_record, upgrade

__all__ = [
    "FORMAT", "DataConfig", "EnergyHeadConfig", "EvaluateConfig", "ExecutionConfig", "ExportConfig",
    "FinetuneConfig", "GenerateConfig", "ImportConfig", "InfoConfig", "LeaksConfig",
    "LowDataConfig", "ModelConfig", "PredictConfig", "PretrainConfig", "RepackConfig",
    "ReplayConfig", "SplitConfig", "TrainingConfig", "dump", "help_text", "launch", "load", "parse",
    "read_record", "upgrade",
]  # fmt: skip
