"""Models for metatomic, and through it for ASE, PLUMED, i-PI and chemiscope.

The outputs are `feature`, and `energy` of a finetuned model. Needs the package metatomic-torch;
`make test-adapters` builds an environment. The file is TorchScript for the CPU. Charge and
multiplicity are the system's inputs `charge` and `spin_multiplicity` (ASE: atoms.info), 0 and 1
where absent.

Axes: N atoms, E edges, C channels.
"""

from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035

import torch
from torch import Tensor, nn

from helm_scale.basis.elements import atomic_number, supported
from helm_scale.export import loader
from helm_scale.extras import needs
from helm_scale.model.energy import EnergyModel
from helm_scale.model.trunk import Trunk
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import Geometry, GraphBatch
from helm_scale.units import HARTREE_IN_EV

with needs("metatomic"):
    from metatensor.torch import Labels, TensorBlock, TensorMap
    from metatomic.torch import (
        AtomisticModel,
        ModelCapabilities,
        ModelMetadata,
        ModelOutput,
        System,
    )

REFERENCE = (
    "Learning from the electronic structure of molecules across the periodic table,"
    " arXiv:2510.00224"
)


def save_features(
    backbone: loader.Backbone, path: str | Path, *, allow_extrapolation: bool = False
) -> None:
    """Write a model with the output `feature`: the invariant rows [N, C] after the last layer.

    Args:
        backbone: from `Backbone.from_pretrained`. path: of the new file, *.pt.
        allow_extrapolation: take elements that training did not show too.
    """
    record = backbone.record
    outputs = {
        "feature": ModelOutput(unit="", sample_kind="atom", description="invariant node features")
    }
    _save(
        _Features(backbone.network),
        path,
        outputs=outputs,
        elements=_taken(
            record["elements"],
            None if allow_extrapolation else TrainingDomain.read(record, "config.json"),
        ),
        cutoff=backbone.cutoff,
        layers=backbone.layers,
    )


def save_energies(
    model: EnergyModel, path: str | Path, *, allow_extrapolation: bool = False
) -> None:
    """Write a model with the outputs `feature` and `energy`, the total energy of a system.

    Forces are its negative gradient, which metatomic takes.

    Args:
        model: from `commands.load_energy_model`. path: of the new file, *.pt.
        allow_extrapolation: take elements that training did not show too.
    """
    config = model.config
    outputs = {
        "feature": ModelOutput(unit="", sample_kind="atom", description="invariant node features"),
        "energy": ModelOutput(unit="eV", sample_kind="system", description="total energy"),
    }
    _save(
        _Energies(model),
        path,
        outputs=outputs,
        elements=_taken(
            list(supported(config.basis)), None if allow_extrapolation else model.training_domain
        ),
        cutoff=config.trunk_cutoff,
        layers=config.num_layers,
    )


def _taken(elements: list[int], domain: TrainingDomain | None) -> list[int]:
    """The elements that the file takes, so that metatomic refuses others: those of training."""
    if domain is None:
        return elements
    return [z for z in elements if z in set(map(atomic_number, domain.elements))]


class _Features(nn.Module):
    """Invariant features [N, C] of one system, float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def feature(
        self,
        positions: Tensor,
        numbers: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> Tensor:
        layers = self.network(positions, numbers, edge_index, batch, charge, spin)
        return layers[-1][:, 0].double()

    def energy(
        self,
        positions: Tensor,
        numbers: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> Tensor:
        """Nobody asks for it: no capability names an energy."""
        return positions.new_zeros(1)


class _Energies(_Features):
    """The same, and the energy [1], float64.

    In eV, so that metatomic need not convert it: it converts in place, which TorchScript may
    refuse.
    """

    def __init__(self, model: EnergyModel) -> None:
        super().__init__(_LastLayer(model.trunk))
        self.model = model

    def energy(
        self,
        positions: Tensor,
        numbers: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> Tensor:
        none = edge_index[:, :0]
        system = GraphBatch(
            keys=("system",),
            atomic_numbers=numbers,
            positions=positions,
            molecule=batch,
            charge=charge,
            spin_multiplicity=spin,
            edge_index=edge_index,
            pair_index=none,
            pair_segments=(),
            atom_order=none[0],
            atom_segments=(),
        )
        return self.model(system) * HARTREE_IN_EV


class _LastLayer(nn.Module):
    """The trunk as a network whose only layer is the last."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        return (self.trunk(Geometry(*arguments)),)


class _Interface(nn.Module):
    """What metatomic calls, in TorchScript: it compares annotations with those of `typing`.

    Systems go one by one; their edges come from the positions.
    """

    def __init__(self, network: nn.Module, elements: list[int], cutoff: float) -> None:
        super().__init__()
        self.network, self.cutoff = network, cutoff
        self.register_buffer("elements", torch.tensor(elements))

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        if selected_atoms is not None:
            raise ValueError(
                "selected_atoms: got some, wanted none:"
                " energies and features are those of whole systems"
            )
        features: List[Tensor] = []  # noqa: UP006
        energies: List[Tensor] = []  # noqa: UP006
        atoms: List[List[int]] = []  # noqa: UP006
        for index, system in enumerate(systems):
            if bool(system.pbc.any()):
                raise ValueError(
                    "system: got periodic boundaries, wanted a molecule; set pbc to False"
                )
            positions, numbers = system.positions.double(), system.types.long()
            batch = torch.zeros_like(numbers)
            apart = (positions.unsqueeze(1) - positions.unsqueeze(0)).detach()
            near = apart.square().sum(dim=2).sqrt() < self.cutoff
            edge_index = torch.nonzero(torch.triu(near, diagonal=1)).t()
            charge = _integer(system, "charge")
            spin = _integer(system, "spin_multiplicity")
            electrons = int(numbers.sum()) - int(charge)
            if int(spin) < 1 or int(spin) > electrons + 1 or (electrons + int(spin)) % 2 == 0:
                raise ValueError(
                    f"system: {electrons} electrons (charge {int(charge)}) cannot have multiplicity"
                    f" {int(spin)}; give its charge and spin_multiplicity"
                )
            if "feature" in outputs:
                rows = self.network.feature(  # type: ignore[operator]
                    positions, numbers, edge_index, batch, charge, spin
                )
                features.append(rows)
                for atom in range(len(numbers)):
                    atoms.append([index, atom])
            if "energy" in outputs:
                energy = self.network.energy(  # type: ignore[operator]
                    positions, numbers, edge_index, batch, charge, spin
                )
                energies.append(energy)
        maps: Dict[str, TensorMap] = {}  # noqa: UP006
        if "feature" in outputs:
            maps["feature"] = _map(
                torch.cat(features), ["system", "atom"], torch.tensor(atoms), "feature"
            )
        if "energy" in outputs:
            each = torch.arange(len(systems)).unsqueeze(1)
            maps["energy"] = _map(torch.cat(energies).unsqueeze(1), ["system"], each, "energy")
        return maps

    @torch.jit.export
    def requested_inputs(self) -> Dict[str, ModelOutput]:  # noqa: UP006
        """Charge and multiplicity of every system."""
        return {
            "charge": ModelOutput(unit="e", sample_kind="system"),
            "spin_multiplicity": ModelOutput(sample_kind="system"),
        }


def _integer(system: System, name: str) -> Tensor:
    """An input of a system, [1]; TorchScript, so that no reader of ours can be called."""
    value = system.get_data(name).block().values[0]
    if not bool((value - value.round()).abs().max() < 1e-6):
        raise ValueError(f"system: {name}: got {float(value)}, wanted an integer")
    return value.round().long()


def _map(
    values: Tensor,
    names: List[str],  # noqa: UP006
    samples: Tensor,
    property_name: str,
) -> TensorMap:
    """One block without components."""
    none: List[Labels] = []  # noqa: UP006
    properties = Labels([property_name], torch.arange(values.shape[1]).to(torch.int32).unsqueeze(1))
    block = TensorBlock(values, Labels(names, samples.to(torch.int32)), none, properties)
    return TensorMap(Labels(["_"], torch.zeros(1, 1, dtype=torch.int32)), [block])


def _save(
    network: _Features,
    path: str | Path,
    *,
    outputs: dict[str, ModelOutput],
    elements: list[int],
    cutoff: float,
    layers: int,
) -> None:
    """Trace a network on water and write it as a model of metatomic."""
    positions = torch.tensor(
        [[0.0, 0.1, 0.119], [0.0, 0.763, -0.477], [0.2, -0.763, -0.477]], dtype=torch.float64
    )
    numbers, batch = torch.tensor([8, 1, 1]), torch.zeros(3, dtype=torch.int64)
    edges = loader.neighbours(positions, batch, cutoff)
    example = (positions, numbers, edges, batch, torch.tensor([0]), torch.tensor([1]))
    # run both once: the cached tables become real tensors before they are traced
    network.eval().energy(*example)
    network.feature(*example)
    traced = torch.jit.trace_module(
        network, {"feature": example, "energy": example}, check_trace=False
    )
    about = ModelMetadata(
        name="helm_scale",
        description="backbone pretrained on Kohn-Sham Hamiltonians",
        references={"architecture": [REFERENCE]},
    )
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=elements,
        interaction_range=cutoff * layers,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    AtomisticModel(_Interface(traced, elements, cutoff).eval(), about, capabilities).save(str(path))
