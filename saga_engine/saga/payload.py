"""
Typed payloads at the border of the core: JSON in, the author's types out, and back.

Only this file of `saga` knows pydantic. Its errors name the place and the rule, never the value, so
they may be shown to anyone who may see that a run exists.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from saga_engine.saga.vocabulary import Json


class PayloadError(ValueError):
    """
    A payload does not fit its type. The text has no values in it.

    It may name a place in the payload, and so the keys of its objects; `brief` does not.
    """

    def __init__(self, text: str, brief: str = "") -> None:
        super().__init__(text)
        self.brief = brief or text


class Payload:
    """
    One payload type: anything pydantic understands (a model, a dataclass, a TypedDict, `dict`).

    Raises:
        PayloadError: pydantic cannot make a schema of *kind*.
    """

    __slots__ = ("_adapter", "kind")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
            self._adapter.rebuild()  # what is not defined yet is found out now, not at a reply
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise PayloadError(f"{name_of(kind)} is no payload type: {reason}") from None

    def read(self, data: Json) -> Any:
        """
        Turn JSON into the author's type.

        Raises:
            PayloadError: it does not fit.
        """
        try:
            return self._read(data)
        except ValidationError as error:
            raise PayloadError(_sentence(self.kind, error), _misfit(self.kind)) from None
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            text = f"cannot be read as {name_of(self.kind)} ({type(error).__name__})"
            raise PayloadError(text) from None

    def _read(self, data: Json) -> Any:
        try:
            return self._adapter.validate_python(data)
        except ValidationError:
            # A strict model takes a datetime or a tuple from JSON, not from Python's str and list.
            return self._adapter.validate_json(json.dumps(data))

    def write(self, value: Any) -> Json:
        """
        Turn a value of the author's type into JSON.

        Raises:
            PayloadError: *value* is not of that type, or holds what cannot travel and be stored.
        """
        given = name_of(type(value))
        try:
            # Without this look a forgotten return is written as null, and another model as {}.
            self._adapter.validate_python(value, strict=True)
            data: Json = self._adapter.dump_python(value, mode="json", warnings="error")
        except ValidationError as error:
            text, brief = _sentence(self.kind, error), _misfit(self.kind)
            raise PayloadError(f"{given} {text}", f"{given} {brief}") from None
        except PydanticSerializationError:
            text = f"{given} does not fit {name_of(self.kind)} (it cannot be written as JSON)"
            raise PayloadError(text) from None
        if not storable(data):
            raise PayloadError(
                f"{name_of(self.kind)} holds what no database takes"
                " (NUL, half a surrogate pair, an integer beyond 64 bits)"
            )
        return data


def storable(data: Json) -> bool:
    """Whether JSON writers and databases take it: whole text without NUL, integers of 64 bits."""
    if isinstance(data, str):
        return _whole(data)
    if isinstance(data, int):
        return -(2**63) <= data < 2**64
    if isinstance(data, Mapping):
        return all(storable(key) and storable(value) for key, value in data.items())
    if isinstance(data, Sequence):
        return all(map(storable, data))
    return True


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def name_of(kind: Any) -> str:
    """How a type is called in messages."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _sentence(kind: Any, error: ValidationError) -> str:
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    # A custom validator's message may quote the value; the code of its type cannot.
    named = [f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['type']}" for p in problems[:3]]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{_misfit(kind)} ({'; '.join(named)}{more})"


def _misfit(kind: Any) -> str:
    return f"does not fit {name_of(kind)}"
