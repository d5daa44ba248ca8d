"""Settings of how long imports, mapping functions and validators may take."""

from typing import Self

from pydantic import BaseModel, Field, model_validator

from saga_engine.settings.field_types import Seconds


class UserCodeSettings(BaseModel):
    """Time limits for code of the user that runs in the engine's event loop."""

    mapping_timeout: Seconds = Field(
        2.0,
        description="Seconds a mapping function or validator may take before it is interrupted; the"
        " run then gets an incident, mapping_failed. A function of an aggregate or a pure one of a"
        " projection as well: the command fails, the projection stops. Mapping data takes"
        " microseconds, and the whole batch waits for it",
    )
    import_timeout: Seconds = Field(
        60.0,
        description="Seconds the import of a module with sagas, participants or a codec may take;"
        " the largest libraries take a few",
    )
    mapping_hard_timeout: Seconds = Field(
        10.0,
        description="Seconds after which a mapping function or validator that cannot be interrupted"
        " ends the worker. More than mapping_timeout, less than shutdown_timeout",
    )

    @model_validator(mode="after")
    def _check_mapping_timeouts(self) -> Self:
        if self.mapping_timeout >= self.mapping_hard_timeout:
            raise ValueError("mapping_timeout must be less than mapping_hard_timeout")
        return self
