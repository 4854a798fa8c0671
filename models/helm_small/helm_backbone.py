"""Load a pretrained backbone with torch and safetensors alone.

Every bundle carries this file as helm_backbone.py.

    from helm_backbone import load, neighbours
    backbone = load(".")                                      # the bundle's folder
    edge_index = neighbours(positions, batch, backbone.cutoff)
    features = backbone(positions, atomic_numbers, edge_index, batch, charge, spin)     # [N, K, C]
    features = backbone.features(atoms)                       # the same from ASE Atoms

Row l*l + l + m of the axis K holds degree l and order m = -l..l, polar axis z; row 0 is invariant.
Channels come last.

Axes: N atoms of all molecules, B molecules, E edges, K = (lmax+1)^2, C channels.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.export.passes
from safetensors.torch import load_file
from torch import Tensor, nn

# What others call charge and multiplicity; taken for 0 and 1 they would give wrong features
OTHER_NAMES = ("total_charge", "q", "multiplicity", "spin_multiplicity", "mult", "total_spin", "s")


class Backbone(nn.Module):
    """Node features of molecules.

    Attributes:
        irreps: of the features, e3nn's notation, C channels of every degree. lmax, channels,
            layers: numbers.
        cutoff: range of the edges, Angstrom. record: all of config.json.
    """

    def __init__(self, network: nn.Module, record: dict[str, Any]) -> None:
        """Put the interface on a network.

        Args:
            network: gives the features after every layer. record: config.json of the bundle.
        """
        super().__init__()
        self.network, self.record = network, record
        self.irreps: str = record["features"]["irreps"]
        self.lmax: int = record["model"]["lmax"]
        self.channels: int = record["model"]["channels"]
        self.layers: int = record["model"]["num_layers"]
        self.cutoff: float = record["trunk_cutoff_angstrom"]

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        charge: Tensor,
        spin: Tensor,
        layer: int = -1,
    ) -> Tensor:
        """Features of every atom after a layer (the last); gradients pass to positions and weights.

        Args:
            positions: [N, 3] Angstrom. atomic_numbers: [N]. edge_index: [2, E] every pair of atoms
                of one molecule within the cutoff ONCE, in either order (`neighbours` makes it).
                batch: [N] molecule of every atom, from 0.
            charge: [B]. spin: [B] multiplicities 2S+1. layer: from 0, or -1 for the last.
        Returns:
            [N, K, C]; they turn with the molecule and do not change when it is moved.
        Raises:
            ValueError: an element, charge, spin or edge that the backbone does not take.
        """
        self._check_molecules(atomic_numbers, batch, charge, spin)
        _check_edges(edge_index, batch)
        geometry = (positions.double(), atomic_numbers, edge_index, batch)
        return self.network(*geometry, charge, spin)[layer]

    def features(self, atoms: Any, layer: int = -1, invariants: bool = False) -> Tensor:
        """Features of one molecule given as ASE Atoms.

        The charge is atoms.info["charge"] (0 where absent), the multiplicity 2S+1
        atoms.info["spin"] (1 where absent).

        Returns:
            [N, K, C], or the invariant rows alone, [N, C].
        Raises:
            ValueError: periodic atoms, or what `forward` does not take.
        """
        features = self(*self.inputs(atoms), layer=layer)
        return features[:, 0] if invariants else features

    def inputs(self, atoms: Any) -> tuple[Tensor, ...]:
        """Arguments of `forward` for one molecule given as ASE Atoms, where the weights are."""
        device = next(self.parameters()).device
        parts = self.read_atoms(atoms)
        positions, atomic_numbers, charge, spin = (part.to(device) for part in parts)
        batch = torch.zeros_like(atomic_numbers)
        edge_index = neighbours(positions, batch, self.cutoff)
        return positions, atomic_numbers, edge_index, batch, charge, spin

    def read_atoms(self, atoms: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions, atomic numbers, charge and multiplicity of ASE Atoms."""
        return read_atoms(atoms)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode of this module alone.

        Nothing inside depends on it, and an exported program refuses it.
        """
        self.training = mode
        return self

    def _check_molecules(
        self, atomic_numbers: Tensor, batch: Tensor, charge: Tensor, spin: Tensor
    ) -> None:
        # Embeddings have a row for every number, also for elements that training never saw.
        embedded = torch.tensor(self.record["elements"], device=atomic_numbers.device)
        foreign = atomic_numbers[~torch.isin(atomic_numbers, embedded)]
        if len(foreign):
            raise ValueError(
                f"atomic_numbers: got {int(foreign[0])}, wanted one of {self.record['elements']},"
                " which are embedded"
            )
        for name, value, (low, high) in (
            ("charge", charge, self.record["charge_range"]),
            ("spin", spin, self.record["spin_multiplicity_range"]),
        ):
            outside = ((value < low) | (value > high)).nonzero()
            if len(outside):
                index = int(outside[0])
                raise ValueError(
                    f"molecule {index}: {name}: got {int(value[index])}, wanted {low} to {high},"
                    " which this backbone embeds"
                )
        check_electrons(atomic_numbers, batch, charge, spin)


def load(folder: str | Path, device: str = "cpu") -> Backbone:
    """Load a bundle: the program of model.pt2 with the weights of model.safetensors.

    Frozen use: `backbone.requires_grad_(False)`. `sha256sum -c SHA256SUMS` tells whether the files
    are whole.

    Raises:
        FileNotFoundError: no bundle. KeyError, RuntimeError: its parts do not fit each other.
    """
    folder = Path(folder)
    record = json.loads((folder / "config.json").read_text())
    program = torch.export.load(folder / "model.pt2")
    # Constants made while tracing have the device of the trace written into the program.
    if torch.device(device).type != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    network = program.module()
    weights = load_file(folder / "model.safetensors", device=device)
    # The file holds the whole model; the program is its trunk.
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return Backbone(network, record)


def neighbours(positions: Tensor, batch: Tensor, cutoff: float) -> Tensor:
    """Pairs of atoms of one molecule closer than the cutoff, each once; no periodic images.

    Args:
        positions: [N, 3] Angstrom. batch: [N] molecule of every atom. cutoff: Angstrom.
    Returns:
        [2, E], the lower index first.
    """
    first, second = (batch[:, None] == batch).triu(diagonal=1).nonzero().T
    # Detached: which atoms are near has no gradient. Strictly below, as in training.
    near = (positions.detach()[first] - positions.detach()[second]).double().norm(dim=-1) < cutoff
    return torch.stack([first[near], second[near]])


def read_atoms(atoms: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read one molecule from ASE Atoms.

    Returns:
        positions [N, 3], atomic numbers [N], charge [1], multiplicity [1].
    Raises:
        ValueError: periodic atoms, or a charge or spin that is no integer.
    """
    if any(atoms.pbc):
        raise ValueError(
            f"atoms: got pbc {[bool(x) for x in atoms.pbc]}, wanted a molecule;"
            " set atoms.pbc = False"
        )
    for name in atoms.info:
        if str(name).lower() in OTHER_NAMES:
            raise ValueError(
                f'atoms.info["{name}"]: this file reads "charge" and "spin" (2S+1); rename it'
            )
    charge = _integer(atoms.info.get("charge", 0), "charge")
    spin = _integer(atoms.info.get("spin", 1), "spin")
    numbers = torch.tensor(atoms.get_atomic_numbers().tolist(), dtype=torch.int64)
    positions = torch.tensor(atoms.get_positions().tolist(), dtype=torch.float64).reshape(-1, 3)
    return positions, numbers, torch.tensor([charge]), torch.tensor([spin])


def check_electrons(atomic_numbers: Tensor, batch: Tensor, charge: Tensor, spin: Tensor) -> None:
    """Check that the number of electrons allows the multiplicity.

    Raises:
        ValueError: it does not; names the molecule.
    """
    electrons = torch.zeros_like(charge).index_add(0, batch, atomic_numbers.to(charge)) - charge
    # 2S unpaired electrons leave an even number that pair up
    wrong = (((electrons + spin) % 2 == 0) | (spin < 1) | (electrons < spin - 1)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise ValueError(
            f"molecule {index}: got {int(electrons[index])} electrons"
            f" (charge {int(charge[index])}) and spin {int(spin[index])} (multiplicity 2S+1),"
            " wanted an odd multiplicity for an even number of electrons and an even one for an odd"
            " number; set both"
        )


def _check_edges(edge_index: Tensor, batch: Tensor) -> None:
    low, high = edge_index.sort(dim=0).values
    code = low * len(batch) + high  # one number per pair, whichever atom comes first
    if (
        code.unique().numel() != code.numel()
        or bool((low == high).any())
        or bool((batch[low] != batch[high]).any())
    ):
        raise ValueError(
            "edge_index: got a pair twice, an atom with itself or atoms of two molecules, wanted"
            " every pair of one molecule once; of edges listed both ways keep"
            " edge_index[:, edge_index[0] < edge_index[1]]"
        )


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or float(value) != int(value):
        raise ValueError(f'atoms.info["{name}"]: got {value}, wanted an integer')
    return int(value)
