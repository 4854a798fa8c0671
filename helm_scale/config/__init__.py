"""Settings of every command, and how they are read."""

from helm_scale.config.data import DataConfig
from helm_scale.config.datasets import (
    ConcatConfig,
    GenerateConfig,
    ImportConfig,
    InfoConfig,
    LeaksConfig,
    RepackConfig,
    SplitConfig,
    VerifyConfig,
)
from helm_scale.config.evaluate import EvaluateConfig, PredictConfig, SummaryConfig
from helm_scale.config.finetune import ExportConfig, FinetuneConfig, LowDataConfig
from helm_scale.config.model import HeadConfig, ModelConfig
from helm_scale.config.pretrain import ExecutionConfig, PretrainConfig, ReplayConfig, TrainingConfig
from helm_scale.config.reading import config_file, dump, flat, help_text, load, packaged, parse
from helm_scale.config.records import FORMAT, completed, read_record, upgrade
from helm_scale.config.strict import Strict

__all__ = [
    "FORMAT",
    "ConcatConfig",
    "DataConfig",
    "EvaluateConfig",
    "ExecutionConfig",
    "ExportConfig",
    "FinetuneConfig",
    "GenerateConfig",
    "HeadConfig",
    "ImportConfig",
    "InfoConfig",
    "LeaksConfig",
    "LowDataConfig",
    "ModelConfig",
    "PredictConfig",
    "PretrainConfig",
    "RepackConfig",
    "ReplayConfig",
    "SplitConfig",
    "Strict",
    "SummaryConfig",
    "TrainingConfig",
    "VerifyConfig",
    "completed",
    "config_file",
    "dump",
    "flat",
    "help_text",
    "load",
    "packaged",
    "parse",
    "read_record",
    "upgrade",
]
