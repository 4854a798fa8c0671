"""The base of every settings model."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys are errors, and nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
