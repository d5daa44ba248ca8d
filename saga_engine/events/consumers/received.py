"""An event as a consumer receives it from another program."""

from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

from saga_engine.events.event_store.recorded import Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Recorded):
    """
    An event that was published, by a feed or by another program.

    Args:
        stream: `order-o-1` of an aggregate; empty if its producer does not say.
        version: its number in the stream, from 1; 0 if its producer does not say.
        place: always 0.
        position: its number in the producer's event log; 0 if its producer does not say.
        type: its name, `order-placed`.
        schema_version: the version of its type that wrote `data`; 1 if its producer does not say.
        schema_id: always None: an id is one of the producer's database.
        recorded_at: when it was appended; if its producer does not say, when it was received.
        id: its id, or a UUID that is always made of it if it is not one.
        data: its content as JSON.
        correlation_id: what it belongs to: a request, a run.
        causation_id: the message or the event that caused it.
        actor: who or what asked for it.
        source: who published it; of a feed `urn:uuid:` and the identity of the event log.
        source_id: its id as the producer gave it. No other event of that source has it.
    """

    source: str
    source_id: str

    @property
    def key(self) -> UUID:
        """The same for the same source and id: a repeated event has it."""
        return key_of(self.source.encode(), self.source_id.encode())


def key_of(*parts: bytes) -> UUID:
    """Make a UUID of texts of any length: the same for the same ones."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return UUID(bytes=digest.digest())
