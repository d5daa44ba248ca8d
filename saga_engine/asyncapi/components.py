"""
The messages and schemas of a document, each once, and the references to them.

pydantic puts the schemas of nested types beside each schema, in `$defs`. AsyncAPI resolves a
reference from the root of the document, so they move to `components.schemas`. Types of equal names
and different schemas get numbered names.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from saga_engine.vocabulary import Json

DEFINITION = "#/$defs/"
SCHEMA = "#/components/schemas/"
MESSAGE = "#/components/messages/"

Document = dict[str, Any]

_INVALID_IN_KEY = re.compile(r"[^A-Za-z0-9._-]")
_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "dependentSchemas", "$defs")
_DATA = ("const", "default", "enum", "examples")


class Components:
    """The `components` of a document, filled while its channels are described."""

    def __init__(self) -> None:
        self.schemas: Document = {}
        self.messages: Document = {}
        self._sources: dict[str, str] = {}  # the schema that pydantic gave, as JSON, by name

    def add_message(self, name: str, message: Document) -> Document:
        """
        Add a message, unless an equal one is there, and return a reference to it.

        Args:
            name: a key for it. A different message of that name gets `name.2`.
            message: an AsyncAPI Message Object.
        """
        for key in _keys(name):
            if self.messages.setdefault(key, message) == message:
                return {"$ref": MESSAGE + key}
        raise AssertionError("keys do not end")

    def add_schema(self, name: str, schema: Document) -> Document:
        """Add a schema that needs no definitions, and return a reference to it."""
        source = json.dumps(schema, sort_keys=True)
        for key in _keys(name):  # a class may have that name
            if self._sources.setdefault(key, source) == source:
                self.schemas[key] = schema
                return {"$ref": SCHEMA + key}
        raise AssertionError("keys do not end")

    def payload(self, schema: Json) -> Document:
        """
        Add the definitions of a JSON Schema, and return the schema with references to them.

        Args:
            schema: an object, as pydantic gives it; unchanged.
        """
        assert isinstance(schema, dict), "pydantic gives an object"
        definitions: Document = schema.get("$defs", {})
        keys = {name: self._key_of(name, definitions) for name in definitions}
        for name, definition in definitions.items():
            self.schemas[keys[name]] = _rewritten(definition, keys)
        own = {keyword: each for keyword, each in schema.items() if keyword != "$defs"}
        rewritten: Document = _rewritten(own, keys)
        return rewritten

    def _key_of(self, name: str, definitions: Mapping[str, Any]) -> str:
        """Choose the key of a definition: that of an equal one, or one that is free."""
        source = json.dumps(_reachable(name, definitions), sort_keys=True)
        for key in _keys(name):
            if self._sources.setdefault(key, source) == source:
                return key
        raise AssertionError("keys do not end")


def _keys(name: str) -> Iterator[str]:
    """Give `name`, `name.2`, `name.3` and so on, without characters that no key may have."""
    key = _INVALID_IN_KEY.sub("_", name)
    yield key
    for number in count(2):
        yield f"{key}.{number}"


def _reachable(name: str, definitions: Mapping[str, Any]) -> Document:
    """Collect a definition and all that it refers to, directly or not."""
    found: Document = {}
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in found and each in definitions:
            found[each] = definitions[each]
            waiting += _references(definitions[each])
    return {"name": name, "definitions": found}


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for each in schema for name in _references(each)]
    if not isinstance(schema, dict):
        return []
    own = schema.get("$ref")
    names = [own.removeprefix(DEFINITION)] if isinstance(own, str) else []
    return names + [name for each in schema.values() for name in _references(each)]


def _rewritten(schema: Any, keys: Mapping[str, str]) -> Any:
    """Let the references of a schema point to the components of the document."""
    if isinstance(schema, list):
        return [_rewritten(each, keys) for each in schema]
    if not isinstance(schema, dict):
        return schema
    rewritten: Document = {}
    for keyword, value in schema.items():
        if keyword in _DATA:
            rewritten[keyword] = value
        elif keyword in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            rewritten[keyword] = {name: _rewritten(each, keys) for name, each in value.items()}
        elif keyword == "$ref" and isinstance(value, str) and value.startswith(DEFINITION):
            rewritten[keyword] = SCHEMA + keys[value.removeprefix(DEFINITION)]
        elif keyword == "discriminator" and isinstance(value, dict):
            continue  # of OpenAPI; AsyncAPI has another one. `oneOf` and `const` say the same
        else:
            rewritten[keyword] = _rewritten(value, keys)
    return rewritten
