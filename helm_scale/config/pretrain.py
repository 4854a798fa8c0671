"""Settings of pretraining: what is optimised, and how it runs.

ExecutionConfig must not change the numbers and may differ at every start."""

from typing import Literal

from pydantic import Field, model_validator

from helm_scale.config.data import DataConfig
from helm_scale.config.model import ModelConfig
from helm_scale.config.strict import Strict


class TrainingConfig(Strict):
    """What is optimised, in which order, for how long."""

    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_molecules: int = Field(8, ge=1, description="molecules per global step")
    micro_batches: int = Field(
        1,
        ge=1,
        description="parts of a global step, balanced by cost; the number of ranks divides it",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "muon", description="adamw, or muon for hidden matrices and adamw for the rest"
    )
    learning_rate: float = Field(5e-3, gt=0, description="peak rate of AdamW")
    muon_learning_rate: float = Field(
        1e-2, gt=0, description="peak rate of Muon, RMS-matched to AdamW"
    )
    muon_dtype: Literal["float64", "float32", "bfloat16"] = Field(
        "float32",
        description="precision of Muon's orthogonalisation; bfloat16, torch's own, is faster where the processor has it",
    )
    working_precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="weights in forward and backward passes; bfloat16 for fsdp2 and zero, the optimiser's copy stays float32",
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    warmup_steps: int = Field(
        100, ge=0, description="steps of linear warm-up; cosine decay to zero follows"
    )
    clip_norm: float = Field(0.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay per step of the average of the weights; 0 turns it off"
    )
    freeze_prefixes: tuple[str, ...] = Field(
        (),
        description="parameters that stay as they are, by how their names begin, such as trunk.layers.0",
    )
    reference_molecules: int = Field(
        1000, ge=1, description="training molecules from which references and scale are fitted"
    )
    seed: int = Field(0, ge=0, description="seed of weights and of sample order")
    loewdin_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the squared error of S^-1/2 H S^-1/2 beside that of H; 0: off",
    )
    orbital_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the squared first-order error of orbital energies beside that of H; 0: off",
    )
    orbital_virtuals: int = Field(
        4, ge=0, description="empty orbitals that count beside the occupied ones"
    )
    loss_threshold: float = Field(
        1e-3, gt=0, description="both drop overlap eigenvalues below this"
    )


class ExecutionConfig(Strict):
    """How it runs; changes memory and time, never the numbers."""

    engine: Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3"] = Field(
        "single",
        description="one process, DDP, FSDP2, or DeepSpeed ZeRO: optimiser states cut (1), gradients too (2), weights too (3)",
    )
    replicas: int = Field(
        1,
        ge=1,
        description="fsdp2: copies of the sharded model (HSDP); divides the number of ranks",
    )
    cpu_offload: bool = Field(
        False,
        description="fsdp2, zero: keep optimiser states (fsdp2: weights too) in the memory of the CPU",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes the GPU where there is one"
    )
    threads: int = Field(0, ge=0, description="CPU threads per process; 0 leaves torch's choice")
    workers: int = Field(0, ge=0, description="data-loading processes per rank")
    pair_ranks: int = Field(
        1, ge=1, description="ranks that share the edges and pairs of the same molecules"
    )
    pair_chunk: int = Field(
        512,
        ge=0,
        description="pairs whose activations are held at once; 0: all, as one ordinary graph",
    )
    recompute: Literal["none", "messages", "full"] = Field(
        "none",
        description="activations of the trunk computed again in the backward pass: none, those of messages, or all",
    )
    message_chunk: int = Field(
        512,
        ge=1,
        description="message edges whose activations are held at once where they are recomputed",
    )
    compile: bool = Field(
        False,
        description="let torch compile the layers on edges and pairs; a minute or more before the first step",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    background_save: bool = Field(
        True,
        description="train on while a checkpoint is written; only copying it holds training up",
    )
    validate_every: int = Field(500, ge=1, description="steps between validations")
    keep_checkpoints: int = Field(
        2, ge=2, description="checkpoints kept beside the best and the last one known to be finite"
    )
    start_timeout_seconds: float = Field(
        1800.0, gt=0, description="time without progress, up to the first step, that ends a rank"
    )
    timeout_seconds: float = Field(600.0, gt=0, description="the same after the first step")
    wall_clock_seconds: float = Field(
        0.0, ge=0, description="save and stop, to be requeued, this long after the start; 0: never"
    )
    skipped_steps: int = Field(
        3,
        ge=0,
        description="steps that may be skipped for a loss or gradient not finite before the run stops",
    )
    spike_score: float = Field(
        8.0, gt=0, description="robust z-score of log(loss) from which a batch is computed twice"
    )
    compare_every: int = Field(
        100, ge=1, description="steps between comparisons of the weights of equal ranks"
    )
    progress: bool = Field(True, description="show a progress bar on rank 0")
    memory_limit_gib: float = Field(
        0.0,
        ge=0,
        description="memory of a rank, 2^30 bytes, for which pair_chunk, recompute and message_chunk are chosen, the set ones being the"
        " most that is held; what libraries and fragmentation take is not in it; 0: no limit",
    )


class PretrainConfig(Strict):
    """Learn Hamiltonians; the same command resumes."""

    out: str = Field(
        "runs/pretrain", description="folder of checkpoints, metrics and TensorBoard files"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    allow_config_change: bool = Field(
        False,
        description="resume although training settings or data are not those of the checkpoint",
    )
    dry_run: bool = Field(
        False, description="print the resolved config, parameters, memory and data, then stop"
    )

    @property
    def loss_matrices(self) -> tuple[str, ...]:
        """Matrices that the loss reads and the model does not."""
        training = self.training
        wanted = ["overlap"] if training.loewdin_weight or training.orbital_weight else []
        wanted += ["baseline_hamiltonian"] if wanted and self.model.baseline != "none" else []
        return tuple(name for name in wanted if name not in self.model.conditions)

    @model_validator(mode="after")
    def _whole_molecules_where_needed(self) -> "PretrainConfig":
        whole = {
            name: getattr(self.training, name) > 0 for name in ("loewdin_weight", "orbital_weight")
        }
        for name in [f"training.{name}" for name, on in whole.items() if on] + [
            "model.flow_steps"
        ] * (self.model.flow_steps > 1):
            if self.execution.pair_ranks > 1:
                raise ValueError(
                    f"{name}: needs whole molecules on every rank, but execution.pair_ranks is {self.execution.pair_ranks}; set it to 1"
                )
        return self


class ReplayConfig(Strict):
    """Compute a doubtful step of a run again, sample by sample."""

    file: str = Field(
        "runs/pretrain/replay/step-00000001.safetensors",
        description="what the run wrote beside its warning",
    )
    data: str = Field("", description="folder of the dataset; empty: where the run found it")
