"""Lists chunks of pairs and message edges, from the configured ones to ever smaller ones."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

from helm_scale.config import ExecutionConfig

MIN_CHUNK = 32  # pairs or edges; smaller ones save little beside weights and node states
# from no recomputation to full, as ExecutionConfig lists them
RECOMPUTE_LEVELS: tuple[str, ...] = get_args(ExecutionConfig.model_fields["recompute"].annotation)


class ChunkSettings(NamedTuple):
    """What is kept for the backward pass; see ExecutionConfig."""

    pair_chunk: int
    recompute: str
    message_chunk: int

    def text(self) -> str:
        """The settings by name, one line."""
        return ", ".join(f"{name} {value}" for name, value in self._asdict().items())


def configured(execution: ExecutionConfig) -> ChunkSettings:
    """The settings as the config has them."""
    return ChunkSettings(execution.pair_chunk, execution.recompute, execution.message_chunk)


def levels_from(recompute: str) -> Sequence[str]:
    """A level of recomputation and those above it."""
    return RECOMPUTE_LEVELS[RECOMPUTE_LEVELS.index(recompute) :]


def candidates(execution: ExecutionConfig, level: str) -> list[ChunkSettings]:
    """Chunks of one level of recomputation, the configured ones first, then halved to MIN_CHUNK."""
    pairs, edges = execution.pair_chunk, execution.message_chunk
    settings = [ChunkSettings(pairs, level, edges)]
    pairs = pairs or 2048  # 0 holds all pairs at once: the first chunk that is smaller
    while max(pairs, edges if level != "none" else 0) > MIN_CHUNK:
        pairs, edges = (max(size // 2, min(size, MIN_CHUNK)) for size in (pairs, edges))
        settings.append(ChunkSettings(pairs, level, edges))
    return settings


def next_to_try(execution: ExecutionConfig) -> str:
    """The setting that saves most beside what is set, as flags."""
    _, *higher = levels_from(execution.recompute)
    _, *smaller = candidates(execution, execution.recompute)
    # Pairs first: they are the most, and their chunks cost no recomputation.
    if not execution.pair_chunk:
        return "--execution.pair_chunk 512"
    if execution.recompute == "none" and higher:
        return f"--execution.recompute {higher[0]}"
    if smaller:
        pairs, edges = smaller[0].pair_chunk, smaller[0].message_chunk
        return f"--execution.pair_chunk {pairs} --execution.message_chunk {edges}"
    if higher:
        return f"--execution.recompute {higher[0]}"
    return f"--execution.pair_ranks {2 * execution.sharing}, or more training.micro_batches"
