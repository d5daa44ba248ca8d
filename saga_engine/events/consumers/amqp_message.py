"""A message of a stream as a consumer takes it: AMQP 1.0 of any sender, read without an error."""

from saga_engine.events.consumers.amqp_sections import NotAmqp, StreamMessage, read_sections
from saga_engine.events.consumers.header_attributes import content_type_attribute, read_attributes
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.stream_chunk import ChunkMessage
from saga_engine.settings import Settings

_PREFIXES = ("cloudEvents_", "cloudEvents:")
_PREFIX = "ce-"


def incoming_message(message: ChunkMessage, settings: Settings) -> IncomingMessage:
    """Read a message of a stream; one that is not AMQP 1.0, or not an event, has a problem."""
    problem, read = message.problem, StreamMessage(data=[message.encoded])
    if not problem:
        try:
            read = read_sections(message.encoded, settings.max_header_count)
        except NotAmqp as error:
            problem = str(error)
        if read.has_value:
            read.data = [message.encoded]
            problem = "Its body is a value of AMQP, and not data. Publish the event as data."
    headers = [(_unprefixed(name), value) for name, value in read.properties]
    attributes, header_problem = read_attributes(headers, _PREFIX, settings)
    body = b"".join(read.data)
    return IncomingMessage(
        attributes=attributes | content_type_attribute(read.content_type),
        body=body,
        body_size=len(body),
        content_encoding=read.content_encoding[:64].decode("ascii", "replace").replace("\0", "?"),
        problem=problem or header_problem,
        offset=message.offset,
        count=message.count,
    )


def _unprefixed(name: str) -> str:
    """Give both prefixes of the AMQP binding of CloudEvents one form."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"{_PREFIX}{name.removeprefix(prefix)}"
    return name
