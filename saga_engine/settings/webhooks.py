"""Settings of webhooks: timeouts, retries, and which addresses are allowed."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BaseModel, Field, field_validator

from saga_engine.settings.field_types import Bytes, Seconds


class WebhookSettings(BaseModel):
    """How a feed sends events to a webhook."""

    webhook_timeout: Annotated[float, Field(ge=0.1, le=60)] = Field(
        10.0,
        description="Seconds in which a receiver must answer a request, from the connection to its"
        " status. Twice that must be less than shutdown_timeout, so that a shutdown waits for it",
    )
    webhook_connect_timeout: Annotated[float, Field(ge=0.1, le=60)] = Field(
        5.0,
        description="Seconds for the name server, and for a connection with TLS",
    )
    webhook_concurrency: Annotated[int, Field(ge=1, le=100)] = Field(
        8,
        description="Maximum number of requests of a feed at once, each of another stream: what a"
        " receiver of a few processes takes without queueing",
    )
    webhook_retry_delay: Seconds = Field(
        5.0,
        description="Seconds until an event that was refused is sent again, and a receiver that is"
        " unreachable is tried again; each delay is twice the one before",
    )
    webhook_retry_delay_max: Seconds = Field(
        3600.0,
        description="Maximum of these delays in seconds, also if the receiver asks for more: so"
        " late it is noticed that it works again",
    )
    webhook_retry_timeout: Seconds = Field(
        86_400.0,
        description="Seconds for which an event that a receiver refuses is sent again; then it is a"
        " dead letter. The default, the maximum, is a day, in which a receiver can be corrected",
    )
    webhook_max_waiting_streams: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000,
        description="Maximum number of streams of a feed that wait for an event which was refused."
        " With one more the feed waits: so many are hardly the fault of the events",
    )
    webhook_max_response_bytes: Bytes = Field(
        65_536,
        description="Bytes of an answer that are read, and dropped, to use its connection again",
    )
    webhook_private_networks: Sequence[IPv4Network | IPv6Network] = Field(
        (),
        description="Networks with addresses that are not public and may receive webhooks, with"
        " commas between them: 10.1.0.0/16. Link-local addresses are never allowed: clouds have"
        " their metadata there",
    )
    webhook_local_http: bool = Field(
        False,  # noqa: FBT003 - the default of a field
        description="Whether webhooks may go to localhost, also with http://. For development",
    )

    @field_validator("webhook_private_networks", mode="before")
    @classmethod
    def _split_networks(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return [each.strip() for each in given.split(",") if each.strip()]
