"""The attributes of an event in headers that are bytes, within limits; none raises an error."""

from collections.abc import Iterable

from saga_engine.events.consumers.interfaces import CONTENT_TYPE
from saga_engine.settings import Settings

MAX_CONTENT_TYPE_BYTES = 256
"""What is read of a content type: more than any has that a body is read for."""

_NOT_STORABLE = dict.fromkeys(map(ord, "\0"), "?")


def read_attributes(
    headers: Iterable[tuple[str, bytes | str | None]], prefix: str, settings: Settings
) -> tuple[dict[str, str], str]:
    """
    Read attributes of CloudEvents.

    Args:
        headers: names and values, as they arrived.
        prefix: of the names that are attributes.
        settings: how many headers, and bytes in them, are read.

    Returns:
        The attributes without the prefix, and a sentence that says why they cannot be read; the
        sentence is empty when they can.
    """
    attributes: dict[str, str] = {}
    count = size = 0
    problem = ""
    for name, value in headers:
        content = value.encode("utf-8", "replace") if isinstance(value, str) else value or b""
        count, size = count + 1, size + len(name.encode("utf-8", "replace")) + len(content)
        if count > settings.max_header_count or size > settings.max_header_bytes:
            return attributes, (
                f"It has more than {settings.max_header_count} headers or"
                f" {settings.max_header_bytes} bytes in them, which max_header_count and"
                " max_header_bytes allow."
            )
        if not name.startswith(prefix):
            continue
        text = content.decode("utf-8", "replace").translate(_NOT_STORABLE)
        if text.encode() != content:
            problem = f"Its header {prefix}{_printable(name, prefix)} is not a text that is stored."
        attributes[_printable(name, prefix)] = text
    return attributes, problem


def content_type_attribute(content_type: bytes | str | None) -> dict[str, str]:
    """Return the content type of a message as an attribute; none if it has none."""
    if not content_type:
        return {}
    given = (
        content_type if isinstance(content_type, bytes) else content_type.encode(errors="replace")
    )
    text = given[:MAX_CONTENT_TYPE_BYTES].decode("utf-8", "replace").translate(_NOT_STORABLE)
    return {CONTENT_TYPE: text}


def _printable(name: str, prefix: str) -> str:
    """The name of an attribute, as PostgreSQL stores it."""
    return name.removeprefix(prefix).encode("utf-8", "replace").decode().translate(_NOT_STORABLE)
