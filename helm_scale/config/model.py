"""Settings of the network: they change the numbers and travel with every checkpoint."""

from typing import Literal

from pydantic import Field, model_validator

from helm_scale.config.strict import Strict


class ModelConfig(Strict):
    """The network. Reference (OMol setting): lmax 6, 128 channels, 3 node layers, 12 Angstrom."""

    basis: Literal["def2-tzvpd", "def2-svp"] = Field(
        "def2-tzvpd", description="orbital basis of the Hamiltonians"
    )
    parity: Literal["semilocal", "full"] = Field(
        "semilocal",
        description="on-site irreps: 'semilocal' (even l1+l2+L; LDA, GGA, meta-GGA) or 'full' (hybrids)",
    )
    baseline: Literal["none", "atoms", "minao"] = Field(
        "none",
        description="H0 that is subtracted from H: none, or one Fock build from the densities of isolated atoms or of minao",
    )
    lmax: int = Field(6, ge=1, le=8, description="highest degree of the features")
    mmax: int = Field(
        6,
        ge=0,
        le=8,
        description="highest order m in the trunk's SO(2) convolutions, at most lmax; the pair tower keeps all orders",
    )
    channels: int = Field(128, ge=2, description="channels per coefficient")
    hidden_channels: int = Field(
        128,
        ge=2,
        description="channels inside the trunk's edgewise operator (half even, half odd) and its FFN",
    )
    pair_width: int = Field(
        2,
        ge=1,
        description="channels of the pair tower over those of the trunk, hidden ones likewise; half are even, half odd under exchange",
    )
    edge_channels: int = Field(128, ge=2, description="width of the radial networks")
    num_layers: int = Field(3, ge=1, description="node layers")
    pair_layers: int = Field(1, ge=1, description="pair layers")
    pair_inputs: Literal["last", "each"] = Field(
        "last",
        description="node states that pair layers read: all the last, or each that of the node layer of its number",
    )
    radial_functions: int = Field(128, ge=4, description="Gaussians of the distance basis")
    trunk_cutoff: float = Field(6.0, gt=0, description="range of messages, Angstrom")
    pair_cutoff: float = Field(
        15.0, gt=0, description="range of Hamiltonian pairs, Angstrom; farther blocks are zero"
    )
    max_charge: int = Field(
        6, ge=0, description="charges from -max_charge to +max_charge are embedded"
    )
    max_multiplicity: int = Field(
        8, ge=1, description="spin multiplicities from 1 to this are embedded"
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="dtype of weights and features"
    )
    conditions: tuple[Literal["overlap", "baseline_hamiltonian"], ...] = Field(
        (),
        description="matrices that the network reads block by block: S, H0; training data must hold them",
    )
    prior: Literal["off", "zero", "irreps", "goe", "tensor"] = Field(
        "off",
        description="start of a flow that the network follows to H; zero: regression by the same network; off: no such network",
    )
    flow_steps: int = Field(
        1, ge=1, description="Euler steps from the prior's draw to a prediction"
    )
    tensor_product_stage: bool = Field(
        False,
        description="pairs of any distance also read a Clebsch-Gordan product of their atoms' states",
    )
    stage_cutoff: float = Field(
        5.0,
        gt=0,
        description="range of the pair layers where tensor_product_stage is set, Angstrom",
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
                    f"{name}: got {getattr(self, name)}, wanted an even number: half of them is even under exchange"
                )
        if self.pair_inputs == "each" and self.pair_layers != self.num_layers:
            raise ValueError(
                f"pair_layers: got {self.pair_layers}, wanted num_layers = {self.num_layers} where pair_inputs is 'each'"
            )
        if "baseline_hamiltonian" in self.conditions and self.baseline == "none":
            raise ValueError(
                "conditions: got baseline_hamiltonian, which needs a baseline; set baseline: minao or atoms"
            )
        return self

    def backbone(self) -> "ModelConfig":
        """The trunk alone, which reads nothing beside the molecule."""
        return self.model_copy(update={"conditions": (), "prior": "off"})


class HeadConfig(Strict):
    """What turns node states into energies; stored with a finetuned model."""

    kind: Literal["linear", "mlp", "layer"] = Field(
        "linear",
        description="linear map of invariants; plus a perceptron; plus one more message layer",
    )
    reads: Literal["last", "each"] = Field(
        "each", description="node states that the head reads: the last, or those of each layer"
    )
    invariants: Literal["scalars", "norms"] = Field(
        "norms",
        description="what it reads of them: degree 0 (the paper's), or that and the norms of every degree and channel",
    )
