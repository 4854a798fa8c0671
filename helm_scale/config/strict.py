"""What all settings models share: their base, and the name of an orbital basis."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from helm_scale.basis.registry import check_basis

Basis = Annotated[str, AfterValidator(check_basis)]  # one of the tables in basis/data


class Strict(BaseModel):
    """Unknown keys are errors, and nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
