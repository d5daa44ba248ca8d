"""What a valid AsyncAPI document is: the official schema, and references that resolve."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

SCHEMA = Path(__file__).parents[1] / "data" / "asyncapi" / "3.1.0.json"


@cache
def validator() -> Draft7Validator:
    """The validator of AsyncAPI 3.1.0."""
    return Draft7Validator(json.loads(SCHEMA.read_text()))


def resolve(document: Any, reference: str) -> Any:
    """What a reference of a document points to."""
    found = document
    for each in reference.removeprefix("#/").split("/"):
        found = found[each.replace("~1", "/").replace("~0", "~")]
    return found


def references(document: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(document, list):
        for each in document:
            yield from references(each)
    if isinstance(document, dict):
        for key, each in document.items():
            if key == "$ref" and isinstance(each, str):
                yield each
            yield from references(each)


def assert_valid(document: Any) -> None:
    """Fail unless a document is valid, and all that it refers to is in it."""
    validator().validate(document)
    for each in references(document):
        resolve(document, each)
    for operation in document["operations"].values():
        channel = resolve(document, operation["channel"]["$ref"])
        for message in operation["messages"]:
            assert resolve(document, message["$ref"]) in channel["messages"].values()
