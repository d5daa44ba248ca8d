"""Changes of a schema, and which of the two versions reads what the other has written."""

from dataclasses import dataclass
from typing import Any

TEXT: Any = {"type": "string"}
INTEGER: Any = {"type": "integer"}
NUMBER: Any = {"type": "number"}
NULL: Any = {"type": "null"}


def record(properties: Any, *required: str, **more: Any) -> Any:
    """An object with these properties; those that are required follow them."""
    return {"type": "object", "properties": properties, "required": list(required), **more}


def field(schema: Any, **definitions: Any) -> Any:
    """An object with the required property `a`."""
    more = {"$defs": definitions} if definitions else {}
    return record({"a": schema}, "a", **more)


def tagged(*tags: str) -> Any:
    """A union of objects that a tag distinguishes."""
    return {"oneOf": [record({"kind": {"const": tag}}, "kind") for tag in tags]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    One change.

    Args:
        name: what is changed.
        old, new: the JSON Schemas.
        backward: whether the new version reads what the old one has written.
        forward: whether the old version reads what the new one writes.
    """

    name: str
    old: Any
    new: Any
    backward: bool
    forward: bool


def _change(name: str, old: Any, new: Any, reads: str) -> Change:
    return Change(name=name, old=old, new=new, backward="b" in reads, forward="f" in reads)


_A = record({"a": TEXT}, "a")
_A_AND_OPTIONAL = record({"a": TEXT, "b": TEXT}, "a")
_A_AND_B = record({"a": TEXT, "b": TEXT}, "a", "b")
_CLOSED: Any = {"additionalProperties": False}

CHANGES = [
    _change("an optional field is added", _A, _A_AND_OPTIONAL, "b f"),
    _change(
        "an optional field with a default is added",
        _A,
        record({"a": TEXT, "b": {**TEXT, "default": "x"}}, "a"),
        "b f",
    ),
    _change("a required field is added", _A, _A_AND_B, "f"),
    _change("an optional field is removed", _A_AND_OPTIONAL, _A, "b f"),
    _change("a required field is removed", _A_AND_B, _A, "b"),
    _change("a required field becomes optional", _A, record({"a": TEXT}), "b"),
    _change("an optional field becomes required", record({"a": TEXT}), _A, "f"),
    _change("an integer becomes a number", field(INTEGER), field(NUMBER), "b"),
    _change("a number becomes an integer", field(NUMBER), field(INTEGER), "f"),
    _change("a text becomes an integer", field(TEXT), field(INTEGER), ""),
    _change("a value is added", field({"enum": ["x"]}), field({"enum": ["x", "y"]}), "b"),
    _change("a value is removed", field({"enum": ["x", "y"]}), field({"enum": ["x"]}), "f"),
    _change("null is allowed", field(TEXT), field({"anyOf": [TEXT, NULL]}), "b"),
    _change("null is forbidden", field({"anyOf": [TEXT, NULL]}), field(TEXT), "f"),
    _change("a text is limited", field(TEXT), field({**TEXT, "maxLength": 5}), "f"),
    _change(
        "an optional field is added where others are forbidden",
        record({"a": TEXT}, "a", **_CLOSED),
        record({"a": TEXT, "b": TEXT}, "a", **_CLOSED),
        "b",
    ),
    _change("a field is renamed", _A, record({"b": TEXT}, "b"), ""),
    _change(
        "a required field is added inside",
        field(record({"x": TEXT}, "x")),
        field(record({"x": TEXT, "y": TEXT}, "x", "y")),
        "f",
    ),
    _change(
        "items become numbers",
        field({"type": "array", "items": INTEGER}),
        field({"type": "array", "items": NUMBER}),
        "b",
    ),
    _change("words are added", field(TEXT), field({**TEXT, "title": "t"}), "b f"),
    _change("a member of a union is added", field(tagged("p")), field(tagged("p", "q")), "b"),
    _change(
        "a definition is renamed",
        field({"$ref": "#/$defs/L"}, L=record({"x": INTEGER}, "x")),
        field({"$ref": "#/$defs/M"}, M=record({"x": INTEGER}, "x")),
        "b f",
    ),
]
"""The changes that users of schema registries ask about most."""
