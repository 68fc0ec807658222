"""What every section of a job file is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """The base of all sections: frozen, unknown keys refused, no conversion of types (`"64"` is not
    a number).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
