"""PySCF's matrices in the canonical order turn as the packed irreps say.

Local operators obey the parity rule.
"""

import numpy as np
import pytest
import torch

from helm_scale.basis.layout import BlockLayout, offsite_layout, onsite_layout
from helm_scale.basis.packing import pack, unpack
from tests.basis.samples import BASIS, Turned
from tests.rotations import wigner
from tests.tolerances import CONVERGED_FOCK, ONE_ELECTRON_INTEGRALS

LIMITS = {
    "overlap": ONE_ELECTRON_INTEGRALS,
    "core": ONE_ELECTRON_INTEGRALS,
    "hartree-fock": CONVERGED_FOCK,
}


def packed_rotation(layout: BlockLayout, rotation: torch.Tensor) -> torch.Tensor:
    """D [size, size] of packed irreps: of every degree D^L on the M axis, the same for all rows."""
    return torch.block_diag(
        *[
            torch.kron(wigner(rotation, degree), torch.eye(len(rows), dtype=torch.float64))
            for degree, rows in layout.rows.items()
        ]
    )


def dropped(blocks: torch.Tensor, layout: BlockLayout) -> float:
    """Largest element (Hartree) of symmetric on-site blocks that the parity rule drops."""
    return float((blocks - unpack(pack(blocks, layout), layout)).abs().max())


@pytest.mark.parametrize("name", LIMITS)
def test_matrices_turn_with_the_molecule(turned: Turned, name: str) -> None:
    expected = turned.ao_rotation @ turned.before[name] @ turned.ao_rotation.T
    assert np.abs(expected - turned.before[name]).max() > 0.1  # the rotation is not a trivial one
    assert np.abs(turned.after[name] - expected).max() < LIMITS[name]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(("first", "second"), [(1, 0), (0, 2), (1, 2), (0, 0), (1, 1), (2, 2)])
def test_packed_irreps_turn_with_the_molecule(
    turned: Turned, name: str, first: int, second: int
) -> None:
    numbers = (int(turned.atomic_numbers[first]), int(turned.atomic_numbers[second]))
    layout = (
        onsite_layout(BASIS, numbers[0], "full")
        if first == second
        else offsite_layout(BASIS, *numbers)
    )
    before, after = (
        pack(torch.tensor(turned.offsite(matrices[name], first, second))[None], layout)[0]
        for matrices in (turned.before, turned.after)
    )
    assert (after - packed_rotation(layout, turned.rotation) @ before).abs().max() < LIMITS[name]


@pytest.mark.parametrize("atom", [0, 1, 2])
@pytest.mark.parametrize("name", ["overlap", "core", "pbe"])
def test_local_operators_have_even_onsite_components_only(
    turned: Turned, name: str, atom: int
) -> None:
    block = torch.tensor(turned.onsite(turned.before[name], atom))[None]
    assert (
        dropped(block, onsite_layout(BASIS, int(turned.atomic_numbers[atom]), "semilocal"))
        < ONE_ELECTRON_INTEGRALS
    )


def test_exact_exchange_has_odd_onsite_components(turned: Turned) -> None:
    oxygen = torch.tensor(turned.onsite(turned.before["hartree-fock"], 0))[None]
    assert dropped(oxygen, onsite_layout(BASIS, 8, "semilocal")) > 1e-4
    assert dropped(oxygen, onsite_layout(BASIS, 8, "full")) < 1e-10
