"""Settings of the largest message, header, name and text that is read or stored."""

from typing import Annotated

from pydantic import BaseModel, Field

from saga_engine.settings.field_types import Bytes, Count


class LimitSettings(BaseModel):
    """What is rejected, truncated or not counted because it is too large."""

    max_body_bytes: Bytes = Field(262_144, description="Maximum size, in bytes, of a message body")
    max_body_depth: Annotated[int, Field(ge=1, le=500)] = Field(
        64, description="Maximum nesting depth of a message body"
    )
    max_body_json_values: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        10_000,
        description="Maximum number of JSON values in a message body, nested values included. One"
        " value takes up to 3 bytes on the wire and 250 in memory, and at least 1 microsecond to"
        " validate",
    )
    max_header_bytes: Annotated[int, Field(ge=4096, le=131_072)] = Field(
        32_768,
        description="Maximum total size, in bytes, of a message's headers. The default is twice"
        " what the engine sends: tracing and the broker add headers",
    )
    max_header_count: Annotated[int, Field(ge=20, le=10_000)] = Field(
        100, description="Maximum number of headers of a message; a command has 9"
    )
    max_name_bytes: Annotated[int, Field(ge=64, le=2000)] = Field(
        255,
        description="Maximum length, in bytes, of a name, id or key that a participant reads from a"
        " command. The default is the limit of an AMQP routing key, and far below the 2,700 bytes"
        " of a PostgreSQL index entry",
    )
    max_request_text_bytes: Annotated[int, Field(ge=64, le=2000)] = Field(
        1000,
        description="Maximum length, in bytes, of a saga name, key, reason or operator in a"
        " request; keys are indexed, with the same limit of PostgreSQL",
    )
    max_dead_letter_body_bytes: Bytes = Field(
        262_144,
        description="Maximum number of bytes kept of a dead letter's body. A worker's memory is"
        " bounded by dead_letter_prefetch times this value, and by reply_prefetch and"
        " request_prefetch times max_body_bytes",
    )
    max_listing_total: Count = Field(
        10_000,
        description="Maximum number of rows the command line counts for the total of a listing. If"
        " there are more, the listing shows that the total is a minimum",
    )
    max_incident_reply_bytes: Annotated[int, Field(ge=0, le=262_144)] = Field(
        4096,
        description="Maximum number of bytes kept of an unreadable reply with its incident. The"
        " whole message is kept as a dead letter",
    )
