"""The backbone as fairchem's: `node_embedding` under fairchem's own heads.

Needs the package fairchem-core; `make test-adapters` builds an environment. Once this module is
imported, a fairchem YAML file may say `backbone: {model: helm_scale, path: BUNDLE}`. fairchem's
coefficients follow e3nn (polar axis y), those of the bundle have the polar axis z: a constant
orthogonal matrix turns one into the other, so that heads that read vectors find them.

Axes: N atoms, K = (lmax+1)^2, C channels.
"""

from pathlib import Path
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn

from helm_scale.export import loader
from helm_scale.export.atoms import molecule_of
from helm_scale.export.backbone import Backbone
from helm_scale.extras import needs

with needs("fairchem"):
    from fairchem.core.common.registry import registry
    from fairchem.core.models.base import BackboneInterface
    from fairchem.core.models.uma.escn_md import GradRegressConfig


@registry.register_model("helm_scale")
class FairchemBackbone(nn.Module, BackboneInterface):  # type: ignore[misc]
    """A bundle's backbone behind fairchem's interface, for molecules without periodic images."""

    to_e3nn: Tensor

    def __init__(self, path: str | Path, regress_forces: bool = False) -> None:
        """Load a bundle.

        Args:
            path: folder of the bundle.
            regress_forces: heads may ask for the gradient with respect to positions.
        """
        super().__init__()
        self.backbone = Backbone.from_pretrained(path)
        self.lmax = self.mmax = self.backbone.lmax
        self.sphere_channels = self.hidden_channels = self.backbone.channels
        self.regress_config = GradRegressConfig(forces=regress_forces)
        self.register_buffer("to_e3nn", polar_axis_z_to_y(self.lmax), persistent=False)

    def forward(self, data: Any) -> dict[str, Tensor]:
        """fairchem's batch -> node_embedding [N, K, C] and batch [N].

        Raises:
            ValueError: periodic systems, or an element, charge or multiplicity that the backbone
                does not take.
        """
        if bool(data["pbc"].any()):
            raise ValueError(
                "data.pbc: got periodic boundaries, wanted molecules; set pbc to False"
            )
        if self.regress_config.forces:
            data["pos"].requires_grad_(True)
        data["batch_full"], data["atomic_numbers_full"] = data["batch"], data["atomic_numbers"]
        positions, batch = data["pos"].double(), data["batch"]
        features = self.backbone(
            positions=positions,
            atomic_numbers=data["atomic_numbers"].long(),
            edge_index=loader.neighbours(positions, batch, self.backbone.cutoff),
            batch=batch,
            charge=data["charge"].long(),
            spin=data["spin"].long(),
        )
        turned = torch.einsum("ij,njc->nic", self.to_e3nn.to(features), features)
        return {"node_embedding": turned, "batch": batch}

    @classmethod
    def build_inference_settings(cls, settings: Any) -> dict[str, Any]:
        """No setting of fairchem's inference concerns this backbone."""
        return {}

    def get_default_untrained_tasks(
        self, checkpoint_tasks: Any, inference_settings: Any
    ) -> list[Any]:
        """None are added: molecules have no stress."""
        return []

    def validate_tasks(self, dataset_to_tasks: Any) -> None:
        """Any dataset will do."""

    def prepare_for_inference(self, data: Any, settings: Any) -> "FairchemBackbone":
        """The backbone runs as it is."""
        return self

    def on_predict_check(self, data: Any) -> None:
        """`forward` checks every batch."""

    def validate_atoms_data(self, atoms: Any, task_name: str) -> None:
        """Set charge 0 and multiplicity 1 where atoms.info has none.

        Raises:
            ValueError: they do not fit the number of electrons.
        """
        molecule = molecule_of(atoms)
        atoms.info |= {"charge": molecule.charge, "spin": molecule.spin_multiplicity}


def polar_axis_z_to_y(lmax: int) -> Tensor:
    """Matrix [K, K] from coefficients with the polar axis z to e3nn's with y.

    Float64, orthogonal, degree by degree. e3nn's matrices act on ours where coordinates are cycled
    to (y, z, x); undoing the cycle is a rotation.
    """
    cycle = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    return torch.block_diag(
        *(o3.Irrep(degree, 1).D_from_matrix(cycle) for degree in range(lmax + 1))
    )
