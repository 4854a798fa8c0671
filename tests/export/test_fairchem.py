"""The backbone under fairchem's own heads; needs fairchem-core (`make test-adapters`)."""

from pathlib import Path
from typing import Any

import ase
import ase.build
import pytest
import torch

from helm_scale import Backbone
from tests.export import page
from tests.rotations import random_rotation

pytest.importorskip(
    "fairchem.core",
    reason="fairchem-core is not in this environment; `make test-adapters` builds one that has it",
)

from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.models.base import HydraModel, HydraModelV2
from fairchem.core.models.uma.escn_md import Linear_Force_Head, MLP_EFS_Head

from helm_scale.export.fairchem import FairchemBackbone, polar_axis_z_to_y


def molecules() -> list[ase.Atoms]:
    found = [ase.build.molecule("CH3OH"), ase.build.molecule("O2"), ase.build.molecule("H2O")]
    for number, info in enumerate(
        ({"charge": 0, "spin": 1}, {"charge": 0, "spin": 3}, {"charge": 1, "spin": 2})
    ):
        found[number].info.update(info)
        found[number].rattle(0.05, seed=number)
    return found


def batch_of(atoms: list[ase.Atoms]) -> Any:
    return atomicdata_list_to_batch(
        [
            AtomicData.from_ase(one, r_data_keys=["charge", "spin"], target_dtype=torch.float64)
            for one in atoms
        ]
    )


@pytest.fixture(scope="module")
def backbone(pristine: Path) -> FairchemBackbone:
    return FairchemBackbone(pristine, regress_forces=True)


def test_node_embedding_is_that_of_the_plain_loader(
    backbone: FairchemBackbone, pristine: Path
) -> None:
    import fairchem.core

    embedding = backbone(batch_of(molecules()))["node_embedding"]
    plain = Backbone.from_pretrained(pristine)
    wanted = torch.cat([plain.features(one) for one in molecules()])
    turned = torch.einsum("ij,njc->nic", polar_axis_z_to_y(6).float(), wanted)
    error = float((embedding - turned).detach().abs().max() / wanted.abs().max())
    versions = f"fairchem-core {fairchem.core.__version__}, torch {torch.__version__}"
    print(f"{versions}: node_embedding deviates by {error:.1e}")
    assert error <= 1e-5
    torch.testing.assert_close(embedding[:, 0], wanted[:, 0], rtol=1e-5, atol=1e-5)


def test_energies_and_forces_of_fairchems_energy_head(
    backbone: FairchemBackbone, pristine: Path
) -> None:
    torch.manual_seed(0)
    model = HydraModelV2(backbone, {"efs": MLP_EFS_Head(backbone).double()})
    head = model.output_heads["efs"].energy_block

    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return head(x.double())

    model.output_heads["efs"].energy_block = Doubled()
    found = model(batch_of(molecules()))["efs"]
    plain = Backbone.from_pretrained(pristine)
    wanted = [
        float(head(plain.features(one, invariants=True).double()).sum()) for one in molecules()
    ]
    torch.testing.assert_close(
        found["energy"]["energy"].detach(),
        torch.tensor(wanted, dtype=torch.float64),
        rtol=1e-5,
        atol=1e-5,
    )
    forces, step = found["forces"]["forces"], 1e-2
    shifted = []
    for sign in (1, -1):
        moved = molecules()
        moved[0].positions[1, 2] += sign * step
        shifted.append(float(model(batch_of(moved))["efs"]["energy"]["energy"][0]))
    assert float(forces[1, 2]) == pytest.approx((shifted[1] - shifted[0]) / (2 * step), rel=2e-2)


def test_fairchems_force_head_finds_vectors(backbone: FairchemBackbone) -> None:
    torch.manual_seed(0)
    head, rotation = Linear_Force_Head(backbone), random_rotation(2).numpy()
    turned = molecules()
    for one in turned:
        one.positions = one.positions @ rotation.T
    before, after = (
        head(data, backbone(data))["forces"] for data in map(batch_of, (molecules(), turned))
    )
    torch.testing.assert_close(
        after, before @ torch.tensor(rotation.T, dtype=before.dtype), rtol=1e-4, atol=1e-4
    )
    assert before.abs().max() > 0.01


def test_a_fairchem_configuration_names_the_bundle(pristine: Path) -> None:
    heads = {"energy": {"module": "fairchem.core.models.uma.escn_md.MLP_EFS_Head"}}
    model = HydraModel({"model": "helm_scale", "path": str(pristine)}, heads, freeze_backbone=True)
    assert model(batch_of(molecules()))["energy"]["energy"]["energy"].shape == (3,)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_wrong_spin_is_refused(backbone: FairchemBackbone) -> None:
    atoms = ase.build.molecule("H2O")
    atoms.info["spin"] = 2
    for use in (
        lambda: backbone.validate_atoms_data(atoms, "omol"),
        lambda: backbone(batch_of([atoms])),
    ):
        with pytest.raises(ValueError, match=r"got 10 electrons \(charge 0\) and spin 2"):
            use()


def test_the_documented_blocks_run(pristine: Path, energy_folder: Path, tmp_path: Path) -> None:
    scope = page.run("python fairchem", tmp_path, bundle=pristine, energy_model=energy_folder)
    assert tuple(scope["forces"].shape) == (6, 3)  # type: ignore[attr-defined]
