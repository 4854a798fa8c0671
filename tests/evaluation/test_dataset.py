"""Which molecule of a dataset is drawn."""

from pathlib import Path

import numpy as np
import pytest

from helm_scale.data.format.manifest import Manifest
from helm_scale.evaluation.dataset import DRAWN_ATOMS, _drawn

QUICKSTART = Path(__file__).parents[2] / "data_shards/quickstart"


def test_the_named_molecule_is_drawn_else_the_largest_that_fits_a_picture() -> None:
    manifest = Manifest.load(QUICKSTART)
    atoms, every = np.asarray(manifest.atoms), np.arange(len(manifest.key))
    few = every[atoms < 5]
    assert atoms[_drawn(manifest, every, None)] == atoms[atoms <= DRAWN_ATOMS].max()
    assert atoms[_drawn(manifest, few, None)] == 4
    assert str(manifest.key[_drawn(manifest, every, "HOCl")]) == "HOCl"
    with pytest.raises(ValueError, match="molecule: got 'XY', wanted one of the evaluated split"):
        _drawn(manifest, every, "XY")
