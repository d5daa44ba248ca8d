"""The fingerprint of a JSON Schema: the same as long as the same values fit."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from saga_engine.schemas.schema_side import NOT_UNDERSTOOD, UNDERSTOOD
from saga_engine.vocabulary import Json

_KEPT = (
    UNDERSTOOD
    | NOT_UNDERSTOOD
    | {
        "$defs",
        "mayBeAbsent",
        "unionMode",
        "discriminator",
        "readAs",
    }
)
_BY_NAME = frozenset({"properties", "patternProperties", "$defs"})
_VALUES = frozenset({"enum", "const", "bounds"})


def fingerprint(*documents: Json) -> str:
    """
    Return the SHA-256 of documents, in hexadecimal digits.

    Titles, descriptions, examples and defaults do not count, nor does the order of keywords: a new
    comment makes no other version, and a default such as the current time not one each time.
    """
    canonical = [_canonical(each) for each in documents]
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_canonical(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for keyword in schema.keys() & _KEPT:
        value = schema[keyword]
        if keyword in _VALUES:
            kept[keyword] = value
        elif keyword == "discriminator":
            # Not its mapping, which has the names of classes.
            kept[keyword] = value.get("propertyName") if isinstance(value, Mapping) else value
        elif keyword == "required":
            kept[keyword] = sorted(value)
        elif keyword in _BY_NAME:
            kept[keyword] = {name: _canonical(each) for name, each in value.items()}
        else:
            kept[keyword] = _canonical(value)
    return kept
