"""Settings of the network: they change the numbers and travel with every checkpoint."""

from typing import Literal

from pydantic import Field, model_validator

from helm_scale.basis.registry import names
from helm_scale.config.strict import Basis, Strict


class ModelConfig(Strict):
    """The network. Reference (OMol setting): lmax 6, 128 channels, 3 node layers, 12 Angstrom."""

    basis: Basis = Field(
        "def2-tzvpd", description=f"Orbital basis of the Hamiltonians: {', '.join(names())}."
    )
    parity: Literal["semilocal", "full"] = Field(
        "semilocal",
        description=(
            "On-site irreps: semilocal keeps those with even l1+l2+L (LDA, GGA, meta-GGA), full"
            " keeps all (hybrids)."
        ),
    )
    baseline: Literal["none", "atoms", "minao"] = Field(
        "none",
        description=(
            "H0 that is subtracted from H: none, or one Fock build from the densities of"
            " isolated atoms or of minao."
        ),
    )
    # features
    lmax: int = Field(6, ge=1, le=8, description="Highest degree of the features.")
    mmax: int = Field(
        6,
        ge=0,
        le=8,
        description=(
            "Highest order m in the trunk's SO(2) convolutions, at most lmax. The pair tower"
            " keeps all orders."
        ),
    )
    channels: int = Field(128, ge=2, description="Channels per coefficient.")
    hidden_channels: int = Field(
        128,
        ge=2,
        description=(
            "Channels inside the trunk's edgewise operator (half even, half odd under exchange)"
            " and its feed-forward network."
        ),
    )
    pair_width: int = Field(
        2,
        ge=1,
        description=(
            "Factor between the channels of the pair tower and of the trunk, hidden ones"
            " likewise. Half of them are even, half odd under exchange."
        ),
    )
    edge_channels: int = Field(128, ge=2, description="Width of the radial networks.")
    num_layers: int = Field(3, ge=1, description="Node layers.")
    pair_layers: int = Field(1, ge=1, description="Pair layers.")
    pair_inputs: Literal["last", "each"] = Field(
        "last",
        description=(
            "Node states that pair layers read: all of them the last, or each that of the node"
            " layer of its number."
        ),
    )
    radial_functions: int = Field(128, ge=4, description="Gaussians of the distance basis.")
    # ranges
    trunk_cutoff: float = Field(6.0, gt=0, description="Range of messages, Angstrom.")
    pair_cutoff: float = Field(
        15.0,
        gt=0,
        description="Range of Hamiltonian pairs, Angstrom. Blocks of farther pairs are zero.",
    )
    max_charge: int = Field(
        6, ge=0, description="Charges from -max_charge to +max_charge are embedded."
    )
    max_multiplicity: int = Field(
        8, ge=1, description="Spin multiplicities from 1 to this are embedded."
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="Precision of weights and features."
    )
    # a flow from a prior to H, and what it reads
    conditions: tuple[Literal["overlap", "baseline_hamiltonian"], ...] = Field(
        (),
        description=(
            "Matrices that the network reads block by block: S, H0. Training data must hold them."
        ),
    )
    prior: Literal["off", "zero", "irreps", "goe", "tensor"] = Field(
        "off",
        description=(
            "Distribution from which a flow to H starts. zero: regression by the same network."
            " off: no such network."
        ),
    )
    flow_steps: int = Field(
        1, ge=1, description="Euler steps from a draw of the prior to a prediction."
    )
    tensor_product_stage: bool = Field(
        False,
        description=(
            "Let pairs of any distance also read a Clebsch-Gordan product of their atoms' states."
        ),
    )
    stage_cutoff: float = Field(
        5.0,
        gt=0,
        description="Range of the pair layers, Angstrom, where tensor_product_stage is set.",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ModelConfig":
        if self.mmax > self.lmax:
            raise ValueError(
                f"mmax: got {self.mmax}, wanted at most lmax = {self.lmax}; set mmax too"
            )
        for name in ("channels", "hidden_channels"):
            if getattr(self, name) % 2:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, wanted an even number:"
                    " half of them is even under exchange"
                )
        if self.pair_inputs == "each" and self.pair_layers != self.num_layers:
            raise ValueError(
                f"pair_layers: got {self.pair_layers}, wanted num_layers = {self.num_layers}"
                " where pair_inputs is 'each'"
            )
        if "baseline_hamiltonian" in self.conditions and self.baseline == "none":
            raise ValueError(
                "conditions: got baseline_hamiltonian, which needs a baseline;"
                " set baseline: minao or atoms"
            )
        return self

    def backbone(self) -> "ModelConfig":
        """The trunk alone, which reads nothing beside the molecule."""
        return self.model_copy(update={"conditions": (), "prior": "off"})


class HeadConfig(Strict):
    """What turns node states into a property; stored with a finetuned model."""

    kind: Literal["linear", "mlp", "layer"] = Field(
        "linear",
        description=(
            "Linear map of the invariants; mlp adds a perceptron; layer adds one more message"
            " layer below."
        ),
    )
    reads: Literal["last", "each"] = Field(
        "each", description="Node states that the head reads: the last, or those of each layer."
    )
    invariants: Literal["scalars", "norms"] = Field(
        "norms",
        description=(
            "Invariants that the head reads of them: degree 0 alone (the paper's), or also the"
            " norms of every degree and channel."
        ),
    )
