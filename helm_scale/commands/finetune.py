"""Learn a property of molecules from few labels, starting from a pretrained backbone."""

import torch

from helm_scale.commands.models import best_device, load_model
from helm_scale.config import FinetuneConfig


def finetune(config: FinetuneConfig) -> str:
    """Learn energies, forces or dipoles on a random, a frozen and a finetuned backbone.

    Tables and models go to `out`.

    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no model, no such target, data or split, molecules without labels, or a
            molecule outside the model's range.
    """
    from helm_scale.finetuning import labels
    from helm_scale.finetuning.report import study

    if config.threads:
        torch.set_num_threads(config.threads)
    backbone, _ = load_model(config.source)
    return study(backbone.to(best_device()), labels.read(config), config)
