"""Where molecules come from."""

from typing import Literal

from pydantic import Field

from helm_scale.config.strict import Strict


class DataConfig(Strict):
    """Where the molecules come from."""

    path: str | tuple[str, ...] = Field(
        "data_shards/quickstart",
        description="folder of shards with a manifest.json, or its URL (file, https, s3, gs, pipe:COMMAND {name}); a list is mixed",
    )
    train_split: str = Field("train", description="split to train on")
    validation_split: str = Field("validation", description="split to validate on")
    weights: tuple[float, ...] = Field(
        (), description="share of each dataset of a mixture; none: each sample equally often"
    )
    shuffle_window: int = Field(
        0,
        ge=0,
        description="shards that are shuffled together, which a cache must hold; 0: all of them",
    )
    damaged: Literal["stop", "quarantine"] = Field(
        "stop", description="at a damaged sample: stop, or skip, count and list it"
    )
    quarantine_share: float = Field(
        0.01, ge=0, lt=1, description="largest share of the samples read that may be skipped"
    )
    cache: str = Field(
        "runs/cache",
        description="folder that shards from elsewhere are fetched into; ranks of a node share it",
    )
    cache_gb: float = Field(100.0, gt=0, description="size limit of that folder, 1e9 bytes")
