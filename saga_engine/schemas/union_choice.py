"""Which member of a union pydantic chooses for a value that several members accept."""

from typing import Any

from saga_engine.schemas.schema_side import Node, Union

_CONVERTED = frozenset({"string", "integer", "number", "boolean"})
_CHOSEN_BY_FIELDS = frozenset({"object", "array"})


def rivals(written_type: Any, union: Union, chosen: int) -> list[int]:
    """
    Return the places of members that a reader may choose instead of another one.

    Args:
        written_type: the JSON type of what is written, None for any.
        union: the reader's, of which each member here may accept a value.
        chosen: the place of the member that accepts all values.
    """
    others = [place for place in range(len(union.members)) if place != chosen]
    if union.is_ordered:
        return [place for place in others if place < chosen]
    if written_type in _CHOSEN_BY_FIELDS:
        # By the number of fields that are set, and by what was converted in them.
        return [place for place in others if union.members[place].get("type") is not None]
    if written_type == "string":
        return [place for place in others if place < chosen]  # the first one that accepts the text
    return []  # 5 and 5.0 are equal, and true is never 1


def may_convert(written_type: Any, reader: Node) -> bool:
    """Whether a reader may convert a value of another JSON type, as `left_to_right` allows."""
    return written_type in _CONVERTED and reader.get("type") in _CONVERTED
