"""Every setting, its meaning and its unit, in frozen, strict models.

ModelConfig changes the numbers and travels with every checkpoint. ExecutionConfig must not change them and may differ
at every start.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Unknown keys are errors, and nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelConfig(Strict):
    """The network. Reference (OMol setting): lmax 6, 128 channels, 3 node layers, 12 Angstrom."""

    basis: Literal["def2-tzvpd", "def2-svp"] = Field("def2-tzvpd", description="orbital basis of the Hamiltonians")
    parity: Literal["semilocal", "full"] = Field(
        "semilocal", description="on-site irreps: 'semilocal' (even l1+l2+L; LDA, GGA, meta-GGA) or 'full' (hybrids)"
    )
    baseline: Literal["none", "atoms", "minao"] = Field(
        "none", description="H0 that is subtracted from H: none, or one Fock build from the densities of isolated atoms or of minao"
    )
    lmax: int = Field(6, ge=1, le=8, description="highest degree of the features")
    mmax: int = Field(
        6, ge=0, le=8, description="highest order m in the trunk's SO(2) convolutions, at most lmax; the pair tower keeps all orders"
    )
    channels: int = Field(128, ge=2, description="channels per coefficient")
    hidden_channels: int = Field(128, ge=2, description="channels inside the trunk's edgewise operator (half even, half odd) and its FFN")
    pair_width: int = Field(
        2,
        ge=1,
        description="channels of the pair tower over those of the trunk, hidden ones likewise; half are even, half odd under exchange",
    )
    edge_channels: int = Field(128, ge=2, description="width of the radial networks")
    num_layers: int = Field(3, ge=1, description="node layers")
    pair_layers: int = Field(1, ge=1, description="pair layers")
    pair_reads: Literal["last", "each"] = Field(
        "last", description="node states that pair layers read: all the last, or each that of the node layer of its number"
    )
    radial_functions: int = Field(128, ge=4, description="Gaussians of the distance basis")
    trunk_cutoff: float = Field(6.0, gt=0, description="range of messages, Angstrom")
    pair_cutoff: float = Field(15.0, gt=0, description="range of Hamiltonian pairs, Angstrom; farther blocks are zero")
    max_charge: int = Field(6, ge=0, description="charges from -max_charge to +max_charge are embedded")
    max_multiplicity: int = Field(8, ge=1, description="spin multiplicities from 1 to this are embedded")
    dtype: Literal["float32", "float64"] = Field("float32", description="dtype of weights and features")
    conditions: tuple[Literal["overlap", "baseline_hamiltonian"], ...] = Field(
        (), description="matrices that the network reads block by block: S, H0; training data must hold them"
    )
    prior: Literal["off", "zero", "irreps", "goe", "tensor"] = Field(
        "off", description="start of a flow that the network follows to H; zero: regression by the same network; off: no such network"
    )
    flow_steps: int = Field(1, ge=1, description="Euler steps from the prior's draw to a prediction")
    two_stage: bool = Field(False, description="pairs of any distance also read a Clebsch-Gordan product of their atoms' states")
    stage_cutoff: float = Field(5.0, gt=0, description="range of the pair layers where two_stage is set, Angstrom")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ModelConfig":
        if self.mmax > self.lmax:
            raise ValueError(f"mmax: got {self.mmax}, wanted at most lmax = {self.lmax}; set mmax too")
        for name in ("channels", "hidden_channels"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted an even number: half of them is even under exchange")
        if self.pair_reads == "each" and self.pair_layers != self.num_layers:
            raise ValueError(f"pair_layers: got {self.pair_layers}, wanted num_layers = {self.num_layers} where pair_reads is 'each'")
        if "baseline_hamiltonian" in self.conditions and self.baseline == "none":
            raise ValueError("conditions: got baseline_hamiltonian, which needs a baseline; set baseline: minao or atoms")
        return self

    def backbone(self) -> "ModelConfig":
        """The trunk alone, which reads nothing beside the molecule."""
        return self.model_copy(update={"conditions": (), "prior": "off"})


class DataConfig(Strict):
    """Where the molecules come from."""

    path: str | tuple[str, ...] = Field(
        "data_shards/quickstart",
        description="folder of shards with a manifest.json, or its URL (file, https, s3, gs, pipe:COMMAND {name}); a list is mixed",
    )
    train_split: str = Field("train", description="split to train on")
    validation_split: str = Field("validation", description="split to validate on")
    weights: tuple[float, ...] = Field((), description="share of each dataset of a mixture; none: each sample equally often")
    shuffle_window: int = Field(0, ge=0, description="shards that are shuffled together, which a cache must hold; 0: all of them")
    damaged: Literal["stop", "quarantine"] = Field("stop", description="at a damaged sample: stop, or skip, count and list it")
    quarantine_share: float = Field(0.01, ge=0, lt=1, description="largest share of the samples read that may be skipped")
    cache: str = Field("runs/cache", description="folder that shards from elsewhere are fetched into; ranks of a node share it")
    cache_gb: float = Field(100.0, gt=0, description="size limit of that folder, 1e9 bytes")


class TrainingConfig(Strict):
    """What is optimised, in which order, for how long."""

    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_molecules: int = Field(8, ge=1, description="molecules per global step")
    bins: int = Field(1, ge=1, description="parts of a global step, balanced by cost; the number of ranks divides it")
    optimizer: Literal["adamw", "muon"] = Field("muon", description="adamw, or muon for hidden matrices and adamw for the rest")
    learning_rate: float = Field(5e-3, gt=0, description="peak rate of AdamW")
    muon_learning_rate: float = Field(1e-2, gt=0, description="peak rate of Muon, RMS-matched to AdamW")
    muon_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of Muon's orthogonalisation; bfloat16, torch's own, is faster where the processor has it"
    )
    working_precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="weights in forward and backward passes; bfloat16 for fsdp2 and zero, the optimiser's copy stays float32",
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up; cosine decay to zero follows")
    clip_norm: float = Field(0.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay per step of the average of the weights; 0 turns it off")
    reference_molecules: int = Field(1000, ge=1, description="training molecules from which references and scale are fitted")
    seed: int = Field(0, ge=0, description="seed of weights and of sample order")
    loewdin_weight: float = Field(0.0, ge=0, description="weight of the squared error of S^-1/2 H S^-1/2 beside that of H; 0: off")
    orbital_weight: float = Field(
        0.0, ge=0, description="weight of the squared first-order error of orbital energies beside that of H; 0: off"
    )
    orbital_virtuals: int = Field(4, ge=0, description="empty orbitals that count beside the occupied ones")
    loss_threshold: float = Field(1e-3, gt=0, description="both drop overlap eigenvalues below this")


class ExecutionConfig(Strict):
    """How it runs; changes memory and time, never the numbers."""

    engine: Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3"] = Field(
        "single", description="one process, DDP, FSDP2, or DeepSpeed ZeRO: optimiser states cut (1), gradients too (2), weights too (3)"
    )
    replicas: int = Field(1, ge=1, description="fsdp2: copies of the sharded model (HSDP); divides the number of ranks")
    cpu_offload: bool = Field(False, description="fsdp2, zero: keep optimiser states (fsdp2: weights too) in the memory of the CPU")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes the GPU where there is one")
    threads: int = Field(0, ge=0, description="CPU threads per process; 0 leaves torch's choice")
    workers: int = Field(0, ge=0, description="data-loading processes per rank")
    pair_ranks: int = Field(1, ge=1, description="ranks that share the edges and pairs of the same molecules")
    pair_chunk: int = Field(512, ge=0, description="pairs whose activations are held at once; 0: all, as one ordinary graph")
    recompute: Literal["none", "messages", "full"] = Field(
        "none", description="activations of the trunk computed again in the backward pass: none, those of messages, or all"
    )
    message_chunk: int = Field(512, ge=1, description="message edges whose activations are held at once where they are recomputed")
    compile: bool = Field(False, description="let torch compile the layers on edges and pairs; a minute or more before the first step")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    background_save: bool = Field(True, description="train on while a checkpoint is written; only copying it holds training up")
    validate_every: int = Field(500, ge=1, description="steps between validations")
    keep_checkpoints: int = Field(2, ge=2, description="checkpoints kept beside the best and the last one known to be finite")
    start_timeout_seconds: float = Field(1800.0, gt=0, description="time without progress, up to the first step, that ends a rank")
    timeout_seconds: float = Field(600.0, gt=0, description="the same after the first step")
    wall_clock_seconds: float = Field(0.0, ge=0, description="save and stop, to be requeued, this long after the start; 0: never")
    skipped_steps: int = Field(3, ge=0, description="steps that may be skipped for a loss or gradient not finite before the run stops")
    spike_score: float = Field(8.0, gt=0, description="robust z-score of log(loss) from which a batch is computed twice")
    compare_every: int = Field(100, ge=1, description="steps between comparisons of the weights of equal ranks")
    progress: bool = Field(True, description="show a progress bar on rank 0")


class PretrainConfig(Strict):
    """launch/pretrain.py: learn Hamiltonians."""

    out: str = Field("runs/pretrain", description="folder of checkpoints, metrics and TensorBoard files")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    accept_changes: bool = Field(False, description="resume although training settings or data are not those of the checkpoint")
    dry_run: bool = Field(False, description="print the resolved config, parameters, memory and data, then stop")

    @property
    def loss_matrices(self) -> tuple[str, ...]:
        """Matrices that the loss reads and the model does not."""
        training = self.training
        wanted = ["overlap"] if training.loewdin_weight or training.orbital_weight else []
        wanted += ["baseline_hamiltonian"] if wanted and self.model.baseline != "none" else []
        return tuple(name for name in wanted if name not in self.model.conditions)

    @model_validator(mode="after")
    def _whole_molecules_where_needed(self) -> "PretrainConfig":
        whole = {name: getattr(self.training, name) > 0 for name in ("loewdin_weight", "orbital_weight")}
        for name in [f"training.{name}" for name, on in whole.items() if on] + ["model.flow_steps"] * (self.model.flow_steps > 1):
            if self.execution.pair_ranks > 1:
                raise ValueError(
                    f"{name}: needs whole molecules on every rank, but execution.pair_ranks is {self.execution.pair_ranks}; set it to 1"
                )
        return self


class ReplayConfig(Strict):
    """launch/replay.py: a doubtful step again, sample by sample, on one CPU."""

    file: str = Field("runs/pretrain/replay/step-00000001.safetensors", description="what the run wrote beside its warning")
    data: str = Field("", description="folder of the dataset; empty: where the run found it")


class EvaluateConfig(Strict):
    """launch/evaluate.py: predicted Hamiltonians against the labels, through PySCF."""

    source: str = Field("runs/pretrain", description="run folder, bundle folder, or folder of anybody's <key>.npz with a Hamiltonian each")
    ao_order: Literal["canonical", "pyscf", "orca", "psi4"] | None = Field(
        None, description="AO order of a folder of npz files that do not name it themselves"
    )
    data: str = Field("data_shards/quickstart", description="folder of shards with a manifest.json")
    split: str = Field("test", description="split to evaluate")
    out: str = Field("runs/evaluation", description="folder of report.json, tables, pictures and cube files; a rerun resumes")
    max_molecules: int = Field(0, ge=0, description="evaluate at most so many molecules; 0 means all")
    orbital_molecules: int = Field(0, ge=0, description="compute orbitals of at most so many; 0 means all")
    energy_molecules: int = Field(0, ge=0, description="of these, energies, dipoles and a Fock rebuild of at most so many; 0 means all")
    force_molecules: int = Field(0, ge=0, description="of these, forces of at most so many; 0 means all")
    scf_molecules: int = Field(4, ge=0, description="of these, SCF from four initial densities for at most so many; 0 means all")
    overlap_threshold: float | None = Field(
        None, gt=0, description="canonical orthogonalisation drops overlap eigenvalues below this; null: 15 times the error of H in Hartree"
    )
    extras: tuple[Literal["orbitals", "stretch", "embedding"], ...] = Field(
        ("orbitals", "stretch", "embedding"), description="pictures and cube files of one molecule, a bond of it stretched, map of features"
    )
    molecule: str | None = Field(None, description="key of the molecule that is drawn and stretched; null: the largest of at most 12 atoms")
    bond: tuple[int, int] | None = Field(None, description="the bond that is stretched, atoms from 0; null: the longest")
    other: str | None = Field(
        None, description="run, bundle or finetuned model of the same architecture beside which features are mapped; null: random weights"
    )
    flow_steps: int = Field(0, ge=0, description="Euler steps of a flow model; 0: as it was trained")
    processes: int = Field(2, ge=1, description="PySCF processes")


class PredictConfig(Strict):
    """launch/predict.py: Hamiltonians of molecules without labels."""

    source: str = Field("runs/pretrain", description="run folder or bundle folder")
    xyz: str = Field("molecules.xyz", description="extended XYZ; charge and multiplicity from info")
    out: str = Field("runs/prediction", description="folder of npz files")
    overlap_threshold: float = Field(
        1e-3, gt=0, description="canonical orthogonalisation drops overlap eigenvalues below this; ten times the error of H in Hartree"
    )
    flow_steps: int = Field(0, ge=0, description="Euler steps of a flow model; 0: as it was trained")
    processes: int = Field(2, ge=1, description="PySCF processes")


class ExportConfig(Strict):
    """launch/export.py: a run's backbone as a folder that torch and safetensors load alone."""

    source: str = Field("runs/pretrain", description="run folder")
    out: str = Field("runs/bundle", description="bundle folder")
    verify: bool = Field(False, description="only verify the bundle at `out`")


class FinetuneConfig(Strict):
    """launch/finetune.py: energies from few labels."""

    source: str = Field("runs/bundle", description="bundle folder; gives the architecture, and the weights unless direct")
    data: str = Field("data_shards/quickstart", description="folder of shards with energies")
    train_split: str = Field("train", description="split to train on")
    test_split: str = Field("test", description="split to test on")
    modes: tuple[Literal["direct", "frozen", "finetuned"], ...] = Field(
        ("direct", "frozen", "finetuned"), description="which of direct, frozen, finetuned to run"
    )
    steps: int = Field(300, ge=0, description="optimiser steps per mode; 0 gives the reference energies alone")
    batch_molecules: int = Field(8, ge=1, description="molecules per step")
    learning_rate: float = Field(2e-3, gt=0, description="peak rate of AdamW for the head and a random backbone")
    backbone_learning_rate: float = Field(1e-3, gt=0, description="peak rate of AdamW for a pretrained backbone")
    seed: int = Field(0, ge=0, description="seed of weights and of sample order")
    out: str = Field("runs/finetune", description="folder of the table, the report and the weights")
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice")


class GenerateConfig(Strict):
    """launch/shards.py generate: label molecules with PySCF and write shards."""

    xyz: str = Field("molecules.xyz", description="extended XYZ; charge, multiplicity, key and split from info")
    out: str = Field("data_shards/new", description="folder of shards and manifest.json")
    xc: str = Field("pbe", description="exchange-correlation functional, PySCF's name")
    basis: Literal["def2-tzvpd", "def2-svp"] = Field("def2-tzvpd", description="orbital basis; its ECP is always applied")
    grid_level: int = Field(3, ge=0, le=9, description="PySCF grid level")
    auxbasis: str | None = Field(None, description="density-fitting basis, e.g. def2-universal-jkfit; none: exact integrals")
    conv_tol: float = Field(1e-10, gt=0, description="SCF threshold, Hartree")
    max_cycle: int = Field(100, ge=1, description="SCF cycles before a molecule is rejected")
    baseline: Literal["none", "atoms", "minao"] = Field("none", description="store H0 of this kind")
    forces: bool = Field(True, description="store forces")
    overlap: bool = Field(False, description="store the overlap")
    licence: str = Field("CC0-1.0", description="licence of the dataset, SPDX name")
    molecules_per_shard: int = Field(64, ge=1, description="molecules per tar file")
    processes: int = Field(2, ge=1, description="PySCF processes")


class ImportConfig(Strict):
    """launch/shards.py import: a public dataset, or a folder of npz files, into shards."""

    dataset: Literal["md17", "qh9-stable", "qh9-dynamic", "nabla-dft", "omol-csh-58k", "npz"] = Field("npz", description="which dataset")
    source: str = Field("dataset.db", description="its file, or the folder of npz files")
    out: str = Field("data_shards/new", description="folder of shards and manifest.json")
    split: str = Field("none", description="published division by name (docs/datasets.md), or none: all is train")
    samples: int = Field(0, ge=0, description="import at most so many, the first; 0 means all")
    exclude: tuple[str, ...] = Field((), description="samples to leave out, [a, b], named as messages name them; listed as rejected")
    xc: str | None = Field(None, description="functional, PySCF's name; none: the dataset's own")
    basis: Literal["def2-tzvpd", "def2-svp"] | None = Field(None, description="orbital basis; none: the dataset's own")
    auxbasis: str | None = Field(None, description="density-fitting basis; none: the dataset's own")
    grid_level: int | None = Field(None, ge=0, le=9, description="PySCF grid level of proofs and H0; none: the dataset's own")
    program: str | None = Field(None, description="program and version that made the labels; none: the dataset's own")
    order: Literal["pyscf", "orca", "psi4"] = Field("pyscf", description="npz: program whose AO order the matrices have")
    licence: str | None = Field(None, description="SPDX name; none: the dataset's own")
    repair: bool = Field(True, description="omol-csh-58k: undo the release's defect of the diffuse shells")
    baseline: Literal["none", "atoms", "minao"] = Field("none", description="store H0 of this kind, computed where the source has none")
    overlap: bool = Field(False, description="store the overlap, computed in float64")
    proof_first: int = Field(4, ge=1, description="samples proven before anything is written")
    proof_share: float = Field(0.01, ge=0, le=1, description="share of all samples proven while they are written")
    proof_atoms: int = Field(20, ge=0, description="larger molecules go without the proof of consistency, which builds a Fock matrix")
    consistency_limit: float | None = Field(None, gt=0, description="largest mean |F[P(H)] - H|, Hartree; none: the dataset's own")
    molecules_per_shard: int = Field(64, ge=1, description="molecules per tar file")
    processes: int = Field(2, ge=1, description="processes")


class SplitConfig(Strict):
    """launch/shards.py split: divide a dataset anew; like samples stay on one side."""

    folder: str = Field("data_shards/new", description="dataset; its manifest is written anew, the old one kept beside it")
    by: Literal["composition", "geometry"] = Field(
        "composition", description="like are samples of one composition, charge and multiplicity, or near-duplicate geometries"
    )
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, validation and test, [a, b, c]")
    tolerance: float = Field(0.05, gt=0, description="near-duplicate: no sorted distance differs by more, Angstrom")
    seed: int = Field(0, ge=0, description="seed of the order in which groups are given to splits")

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> "SplitConfig":
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions: got {list(self.fractions)}, wanted three shares that sum to one")
        return self


class LeaksConfig(Strict):
    """launch/shards.py leaks: find near-duplicates in different splits."""

    folder: str = Field("data_shards/new", description="dataset")
    tolerance: float = Field(0.05, gt=0, description="near-duplicate: no sorted distance differs by more, Angstrom")


class RepackConfig(Strict):
    """launch/shards.py repack: the same samples in shards of another size."""

    folder: str = Field("data_shards/new", description="dataset")
    out: str = Field("data_shards/repacked", description="new folder of shards and manifest.json")
    molecules_per_shard: int = Field(64, ge=1, description="molecules per tar file")
