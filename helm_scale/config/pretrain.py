"""Settings of pretraining: what is optimised, and how it runs.

ExecutionConfig must not change the numbers and may differ at every start.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from helm_scale.config.data import DataConfig
from helm_scale.config.model import ModelConfig
from helm_scale.config.reading import dump
from helm_scale.config.strict import Strict


class TrainingConfig(Strict):
    """What is optimised, in which order, for how long."""

    # batches
    steps: int = Field(1000, ge=1, description="Number of optimiser steps.")
    batch_molecules: int = Field(
        8, ge=1, description="Molecules per optimiser step, over all ranks."
    )
    micro_batches: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description=(
            "Micro-batches that a step is divided into, of equal cost. auto: one per rank, or as"
            " many more as execution.memory_limit_gib asks for. A number is rounded up to a"
            " multiple of the ranks."
        ),
    )
    # optimiser
    optimizer: Literal["adamw", "muon", "soap"] = Field(
        "muon",
        description=(
            "adamw for all weights, or muon or soap for the hidden matrices and adamw for the rest."
        ),
    )
    learning_rate: float = Field(5e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_learning_rate: float = Field(
        1e-2, gt=0, description="Peak learning rate of Muon, whose updates have the RMS of AdamW's."
    )
    muon_dtype: Literal["auto", "float64", "float32", "bfloat16"] = Field(
        "float32",
        description=(
            "Precision in which Muon orthogonalises. bfloat16, torch's own choice, is faster"
            " where the processor has it, and six times slower where not; auto looks."
        ),
    )
    soap_learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate of SOAP.")
    soap_max_side: int = Field(
        512,
        ge=1,
        description=(
            "Longest side of a matrix that SOAP preconditions; the work grows as its cube."
        ),
    )
    soap_renew_every: int = Field(
        10, ge=1, description="Steps between renewals of the eigenbases of SOAP."
    )
    working_precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description=(
            "Precision of weights in forward and backward passes. bfloat16 needs fsdp2 or zero;"
            " the optimiser keeps a float32 copy."
        ),
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    warmup_steps: int = Field(
        100,
        ge=0,
        description="Steps of linear warm-up; the rate then falls to zero along a cosine.",
    )
    clip_norm: float = Field(
        0.0,
        ge=0,
        description="Largest gradient norm; longer gradients are scaled down. 0: no clipping.",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay per step of the moving average of the weights. 0: no average.",
    )
    # what is fitted before the first step, and what stays as it is
    freeze_prefixes: tuple[str, ...] = Field(
        (),
        description=(
            "Parameters whose names begin like this stay as they are, for example [trunk.layers.0]."
        ),
    )
    reference_molecules: int = Field(
        1000,
        ge=1,
        description=(
            "Training molecules from which on-site references and the scale of the labels are"
            " fitted."
        ),
    )
    seed: int = Field(0, ge=0, description="Seed of the weights and of the order of the samples.")
    # terms of the loss beside the matrix elements; they need the overlap
    loewdin_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the squared error of S^-1/2 H S^-1/2 beside that of H. 0: off.",
    )
    orbital_weight: float = Field(
        0.0,
        ge=0,
        description=(
            "Weight of the squared first-order error of orbital energies beside that of H. 0: off."
        ),
    )
    orbital_virtuals: int = Field(
        4,
        ge=0,
        description="Empty orbitals whose energies count beside those of all occupied ones.",
    )
    loss_threshold: float = Field(
        1e-3,
        gt=0,
        description=(
            "Overlap eigenvalues below this are dropped where the loss uses S^-1/2 or orbitals."
        ),
    )


class ExecutionConfig(Strict):
    """How it runs; changes memory and time, never the numbers."""

    # engine
    engine: Literal["auto", "single", "ddp", "fsdp2", "zero1", "zero2", "zero3"] = Field(
        "auto",
        description=(
            "One process, DDP, FSDP2, or DeepSpeed ZeRO, which shards optimiser states (zero1),"
            " gradients too (zero2), weights too (zero3). auto: single for one process, ddp for"
            " several, fsdp2 where memory or another setting asks for it."
        ),
    )
    replicas: int = Field(
        1,
        ge=1,
        description=(
            "Copies of the sharded model under fsdp2 (HSDP). Must divide the number of ranks."
        ),
    )
    cpu_offload: bool = Field(
        False,
        description=(
            "Keep optimiser states (under fsdp2 weights too) in the memory of the CPU. For"
            " fsdp2 and zero."
        ),
    )
    # processes
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device to compute on; auto takes the GPU where there is one."
    )
    threads: int = Field(0, ge=0, description="CPU threads per process. 0: as torch chooses.")
    workers: int = Field(
        0,
        ge=0,
        description=(
            "Processes per rank that read and collate batches ahead. 0: the rank does it itself."
        ),
    )
    # memory
    pair_ranks: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description=(
            "Ranks that share the edges and pairs of the same molecules. auto: as few ranks of a"
            " node as are evenly loaded."
        ),
    )
    pair_chunk: int = Field(
        512,
        ge=0,
        description="Pairs whose activations are held at once. 0: all, as one ordinary graph.",
    )
    recompute: Literal["none", "messages", "full"] = Field(
        "none",
        description=(
            "Activations of the trunk that the backward pass computes again: none, those of"
            " messages, or all."
        ),
    )
    message_chunk: int = Field(
        512,
        ge=1,
        description="Message edges whose activations are held at once where they are recomputed.",
    )
    compile: bool = Field(
        False,
        description=(
            "Compile the layers on edges and pairs with torch; costs a minute or more before"
            " the first step."
        ),
    )
    # saving and validating
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    background_save: bool = Field(
        True,
        description=(
            "Go on training while a checkpoint is written; only copying the state then takes time."
        ),
    )
    validate_every: int = Field(500, ge=1, description="Steps between validations.")
    keep_checkpoints: int = Field(
        2,
        ge=2,
        description=(
            "Newest checkpoints to keep, beside the best one and the last one known to be finite."
        ),
    )
    # guards
    start_timeout_seconds: float = Field(
        1800.0,
        gt=0,
        description=(
            "A rank ends after this long without progress, seconds, until the first step is done."
        ),
    )
    timeout_seconds: float = Field(
        600.0,
        gt=0,
        description=(
            "A rank ends after this long without progress, seconds, once the first step is done."
        ),
    )
    wall_clock_seconds: float = Field(
        0.0,
        ge=0,
        description=(
            "Save and stop, to be started again, this long after the start, seconds. 0: never."
        ),
    )
    skipped_steps: int = Field(
        3,
        ge=0,
        description=(
            "Steps that may be skipped because loss or gradient is not finite, before the run"
            " stops."
        ),
    )
    spike_score: float = Field(
        8.0,
        gt=0,
        description=(
            "Robust z-score of log(loss) from which a loss counts as a spike and its batch is"
            " computed twice."
        ),
    )
    compare_every: int = Field(
        100,
        ge=1,
        description=(
            "Steps between comparisons of the weights of ranks that must hold the same ones."
        ),
    )
    keep_replays: int = Field(
        4, ge=1, description="Newest files of doubtful steps to keep; each holds all weights."
    )
    progress: bool = Field(True, description="Show a progress bar on rank 0.")
    metrics_details: bool = Field(
        False,
        description=(
            "Write names of the samples and the seconds of every rank into metrics.jsonl, too:"
            " some 100 kB per step for 4,096 molecules on 512 ranks."
        ),
    )
    memory_limit_gib: float = Field(
        0.0,
        ge=0,
        description=(
            "Memory of a rank, GiB, for which pair_chunk, recompute and message_chunk are"
            " chosen; the values set are then the most that is held. Leave room for libraries"
            " and fragmentation, which are not counted. 0: no limit."
        ),
    )

    @property
    def sharing(self) -> int:
        """pair_ranks, once it has been chosen."""
        assert self.pair_ranks != "auto"
        return self.pair_ranks


class PretrainConfig(Strict):
    """Learn Hamiltonians; the same command resumes."""

    out: str = Field(
        "runs/pretrain", description="Folder of checkpoints, metrics and TensorBoard files."
    )
    data: DataConfig = DataConfig()
    init_from: str | None = Field(
        None,
        description=(
            "Run, checkpoint, bundle or name of a model whose weights training starts from, as far"
            " as they fit. Null: random weights. A run that resumes reads its own checkpoint."
        ),
    )
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    allow_config_change: bool = Field(
        False,
        description=(
            "Resume although training settings or data differ from those of the checkpoint."
        ),
    )
    dry_run: bool = Field(
        False, description="Print the resolved config, parameters, memory and data, then stop."
    )

    @property
    def loss_matrices(self) -> tuple[str, ...]:
        """Matrices that the loss reads and the model does not."""
        training = self.training
        wanted = ["overlap"] if training.loewdin_weight or training.orbital_weight else []
        wanted += ["baseline_hamiltonian"] if wanted and self.model.baseline != "none" else []
        return tuple(name for name in wanted if name not in self.model.conditions)

    def to_resume(self) -> str:
        """What config.yaml of the run holds: the settings, what was left open (auto) still open."""
        # to accept a change once is not to accept all later ones
        lasting = self.model_copy(update={"allow_config_change": False, "dry_run": False})
        return dump(lasting)

    @property
    def needs_whole_molecules(self) -> list[str]:
        """Settings under which a rank must hold all pairs of its molecules."""
        needs_whole = {
            "training.loewdin_weight": self.training.loewdin_weight > 0,
            "training.orbital_weight": self.training.orbital_weight > 0,
            "model.flow_steps": self.model.flow_steps > 1,
        }
        return [name for name, needed in needs_whole.items() if needed]

    @model_validator(mode="after")
    def _whole_molecules_where_needed(self) -> "PretrainConfig":
        pair_ranks = self.execution.pair_ranks
        for name in self.needs_whole_molecules:
            if pair_ranks not in (1, "auto"):
                raise ValueError(
                    f"{name}: needs whole molecules on every rank,"
                    f" but execution.pair_ranks is {pair_ranks}; set it to 1"
                )
        return self


class ReplayConfig(Strict):
    """Compute a doubtful step of a run again, sample by sample."""

    file: str = Field(
        "runs/pretrain/replay/step-00000001.safetensors",
        description="File that a run wrote beside its warning of a doubtful step.",
    )
    data: str = Field("", description="Folder of the dataset. Empty: where the run found it.")
