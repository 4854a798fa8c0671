"""The composition root: the one folder that sees every part, one function per command.

PySCF- and DeepSpeed-backed parts are imported inside the functions that need them, so that a
training node needs no PySCF and the import stays quick.
"""

from helm_scale.commands.evaluate import evaluate
from helm_scale.commands.export import export
from helm_scale.commands.finetune import finetune
from helm_scale.commands.low_data import low_data
from helm_scale.commands.models import (
    find_model,
    load_energy_model,
    load_model,
    load_property_model,
    load_state,
    validation_error,
)
from helm_scale.commands.predict import predict
from helm_scale.commands.pretrain import pretrain
from helm_scale.commands.replay import replay
from helm_scale.commands.shards import (
    shards_concat,
    shards_generate,
    shards_import,
    shards_info,
    shards_leaks,
    shards_repack,
    shards_split,
    shards_verify,
)
from helm_scale.commands.summary import summary

__all__ = [
    "evaluate",
    "export",
    "find_model",
    "finetune",
    "load_energy_model",
    "load_model",
    "load_property_model",
    "load_state",
    "low_data",
    "predict",
    "pretrain",
    "replay",
    "shards_concat",
    "shards_generate",
    "shards_import",
    "shards_info",
    "shards_leaks",
    "shards_repack",
    "shards_split",
    "shards_verify",
    "summary",
    "validation_error",
]
