"""Training that starts from the weights of another model (`init_from`)."""

import logging
from dataclasses import replace

import torch

from helm_scale.commands.models import load_model
from helm_scale.model.helm import Helm
from helm_scale.types import Method

_log = logging.getLogger(__name__)


def start_from(model: Helm, source: str, method: Method) -> None:
    """Copy into a model what fits of a trained one: weights, scale and on-site references.

    Weights of other shapes, and of parts that the trained model lacks, stay as they are. So does
    the on-site reference of an element that it never saw, and every reference where the labels come
    from another method, since references are means of labels. The log says what is taken.

    Args:
        model: with the reference that was fitted to its data. source: see load_model.
        method: of the labels that training goes on with.
    Raises:
        ValueError: nothing to load there, another basis or baseline, or no weight that fits.
    """
    trained, of_labels = load_model(source)
    for name in ("basis", "baseline"):
        got, wanted = getattr(trained.config, name), getattr(model.config, name)
        if got != wanted:
            raise ValueError(
                f"init_from: {source}: {name} {got}, wanted {wanted} as model.{name}; train it anew"
            )
    own, theirs = model.state_dict(), trained.state_dict()
    fits = {name for name, tensor in own.items() if _shape(theirs.get(name)) == tensor.shape}
    weights = fits - {"reference", "output_scale"}
    if not weights:
        raise ValueError(f"init_from: {source}: no weight has the shape that it has here")
    theirs["reference"] = _reference(model, trained, same=_same(of_labels, method))
    model.load_state_dict({name: theirs[name] if name in fits else own[name] for name in own})
    model.training_domain = trained.training_domain
    new = sorted(own.keys() - fits)
    _log.info(
        "init_from %s: %d of %d tensors taken%s",
        source,
        len(fits),
        len(own),
        f"; new: {', '.join(new[:5])}{' ...' if len(new) > 5 else ''}" if new else "",
    )


def _shape(tensor: torch.Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _same(one: Method, other: Method) -> bool:
    """Whether labels of two methods have the same mean: the program's version does not matter."""
    return one == replace(other, program=one.program, conv_tol=one.conv_tol)


def _reference(model: Helm, trained: Helm, *, same: bool) -> torch.Tensor:
    """On-site references row by row: the trained model's where it has one and may keep it."""
    taken = trained.reference.any(dim=1)  # an element that training never showed has zeros
    if not same:
        taken &= ~model.reference.any(dim=1)
    return torch.where(taken[:, None], trained.reference, model.reference)
