"""Where molecules come from."""

from typing import Literal

from pydantic import Field

from helm_scale.config.strict import Strict


class DataConfig(Strict):
    """Where the molecules come from."""

    path: str | tuple[str, ...] = Field(
        "data_shards/quickstart",
        description=(
            "Folder of shards with a manifest.json, or its URL (file, https, s3, gs, or"
            " pipe:COMMAND {name}). A list of folders is mixed."
        ),
    )
    train_split: str = Field("train", description="Split to train on.")
    validation_split: str = Field("validation", description="Split to validate on.")
    weights: tuple[float, ...] = Field(
        (),
        description=(
            "Share of each dataset of a mixture, in any unit. None: each sample is seen equally"
            " often."
        ),
    )
    shuffle_window: int = Field(
        0,
        ge=0,
        description=(
            "Shards that are shuffled together; a cache must hold so many. 0: all of them."
        ),
    )
    damaged: Literal["stop", "quarantine"] = Field(
        "stop",
        description="What to do with a damaged sample: stop, or skip it, count it and list it.",
    )
    quarantine_share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Largest share of the samples read that may be skipped as damaged.",
    )
    cache: str = Field(
        "runs/cache",
        description="Folder that remote shards are fetched into. The ranks of a node share it.",
    )
    cache_gb: float = Field(100.0, gt=0, description="Size limit of the cache, GB (1e9 bytes).")
