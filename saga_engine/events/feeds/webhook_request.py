"""
An event as an HTTP request: CloudEvents 1.0 in binary mode, as its HTTP protocol binding says.

The attributes are headers that begin with `ce-`, percent-encoded, and the body is the data.
"""

from dataclasses import dataclass, field
from urllib.parse import quote
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.cloud_event import encode_event

MAX_HEADER_BYTES = 8_192
"""What most servers accept of all headers together (nginx: 8 KiB each, Node.js: 16 KiB in all)."""

_SAFE = "".join(chr(each) for each in range(0x21, 0x7F) if chr(each) not in '"%')


class HeadersTooLarge(ValueError):
    """The attributes of an event are more than receivers accept as headers."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """
    What is sent for an event, the same at each attempt.

    Args:
        id: of the event.
        headers: of CloudEvents, and the content type; without those of the signature.
        body: the data as JSON.
    """

    id: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


def encode_request(event: Recorded, log_id: UUID) -> WebhookRequest:
    """
    Make the request of an event.

    Args:
        event: an event.
        log_id: the identity of the log that it is from.

    Raises:
        UnreadableEvent: its data is not JSON that can be read and written.
        HeadersTooLarge: an attribute, such as the actor, is too long.
    """
    message = encode_event(event, log_id)
    headers = {
        name: quote(str(value), safe=_SAFE, errors="replace")
        for name, value in message.headers.items()
    }
    size = sum(len(name) + len(value) for name, value in headers.items())
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"its attributes have {size} bytes; {MAX_HEADER_BYTES} are allowed")
    return WebhookRequest(
        message.message_id, {**headers, "content-type": "application/json"}, message.body
    )
