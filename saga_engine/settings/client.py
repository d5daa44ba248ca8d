"""Settings of a client: how long it waits for a worker."""

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Seconds


class ClientSettings(BaseModel):
    """How long a client waits, and how often it asks."""

    client_timeout: Seconds = Field(
        10.0, description="Seconds a client waits for a worker to answer a request"
    )
    client_poll_interval: Seconds = Field(
        2.0,
        description="Seconds after which a client repeats a question, such as the status of a run;"
        " answers and notifications of finished runs are delivered at most once",
    )
