"""Settings of every command, and how they are read."""

from helm_scale.config.reading import dump, help_text, launch, load, parse
from helm_scale.config.settings import (
    DataConfig,
    EnergyHeadConfig,
    EvaluateConfig,
    ExecutionConfig,
    ExportConfig,
    FinetuneConfig,
    GenerateConfig,
    ImportConfig,
    InfoConfig,
    LeaksConfig,
    LowDataConfig,
    ModelConfig,
    PredictConfig,
    PretrainConfig,
    RepackConfig,
    ReplayConfig,
    SplitConfig,
    TrainingConfig,
)

__all__ = [
    "DataConfig", "EnergyHeadConfig", "EvaluateConfig", "ExecutionConfig", "ExportConfig", "FinetuneConfig", "GenerateConfig",
    "ImportConfig", "InfoConfig", "LeaksConfig", "LowDataConfig", "ModelConfig", "PredictConfig", "PretrainConfig", "RepackConfig",
    "ReplayConfig", "SplitConfig", "TrainingConfig", "dump", "help_text", "launch", "load", "parse",
]  # fmt: skip
