"""The low-data protocol: labels, pretraining and finetuning in one command."""

from helm_scale.commands.finetune import finetune
from helm_scale.commands.pretrain import pretrain
from helm_scale.commands.shards import shards_generate
from helm_scale.config import LowDataConfig


def low_data(config: LowDataConfig) -> str:
    """Label molecules, pretrain on their Hamiltonians, finetune on few of their energies; what is
    done already is kept.

    Returns:
        What the dataset holds, how pretraining ended, and the tables of finetuning, Markdown.
    Raises:
        ValueError: as the three commands; parts of the config that do not fit each other.
    """
    for key, got, wanted in (
        ("pretrain.data.path", config.pretrain.data.path, config.labels.out),
        ("finetune.data", config.finetune.data, config.labels.out),
        ("finetune.source", config.finetune.source, config.pretrain.out),
    ):
        if got != wanted:
            raise ValueError(f"{key}: got {got}, wanted {wanted}, which the step before writes")
    return "\n\n".join(
        [shards_generate(config.labels), pretrain(config.pretrain), finetune(config.finetune)]
    )
