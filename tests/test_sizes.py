"""The committed sizes of QHFlow2 have the published numbers of parameters."""

from pathlib import Path

import pytest
import torch

from helm_scale.config import PretrainConfig, load
from helm_scale.model.helm import Helm

PUBLISHED = {"s": 12e6, "m": 43e6, "l": 184e6, "xl": 910e6}  # arXiv:2602.16897


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_within_a_tenth_of_the_published(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "uniform_",
        "normal_",
        "fill_",
        "zero_",
    ):  # memory that is never written costs nothing
        monkeypatch.setattr(torch.Tensor, name, lambda self, *args, **options: self)
    monkeypatch.setattr(torch, "randn", torch.empty)
    for name in ("kaiming_uniform_", "uniform_", "normal_", "ones_", "zeros_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *args, **options: tensor)
    path = Path(__file__).parent.parent / "configs" / f"qhflow2_{size}.yaml"
    config = load(PretrainConfig, ["--config", str(path)]).model
    assert sum(parameter.numel() for parameter in Helm(config).parameters()) == pytest.approx(
        PUBLISHED[size], rel=0.1
    )
