"""
Typed payloads at the border of the core: JSON in, the author's types out, and back.

The one place where a value is written. What a type says is what arrives: a value is written so that
its type reads it back unchanged, or refused with a sentence. Names are aliases in both directions.
Errors name the place and the rule, never the value, so they may be shown to anyone who may see that
a run exists.
"""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, to_json

from saga_engine.payload.equality import fields_of, same, sort_sets
from saga_engine.payload.limits import Limits, excess
from saga_engine.payload.round_trip import Lost, faith_in
from saga_engine.payload.samples import CONTEXT
from saga_engine.vocabulary import Json

_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")
_LONG = re.compile(rb"[0-9]{16}")
_SUSPECT = re.compile(rb"NaN|Infinity|\\u0000|[0-9]{19}")
"""What the JSON of a value contains that JSON writers or databases may refuse; it may be text."""


class PayloadError(ValueError):
    """
    A payload does not fit its type. The text has no values in it.

    It may name a place in the payload, and so the keys of its objects; `brief` does not. `mend` is
    what an author can do about a type.
    """

    def __init__(self, text: str, brief: str = "", mend: str = "Use a pydantic model.") -> None:
        super().__init__(text)
        self.brief = brief or text
        self.mend = mend


class Payload:
    """
    One payload type: anything pydantic understands (a model, a dataclass, a TypedDict, `dict`).

    Raises:
        PayloadError: pydantic cannot make a schema of *kind*, or no value of it, or of a part of
            it, could be read back from JSON as it was.
    """

    __slots__ = ("_adapter", "_faith", "kind")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
            self._adapter.rebuild()  # what is not defined yet is found out now, not at a reply
            self._faith = faith_in(self._adapter.core_schema)
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise PayloadError(f"{name_of(kind)} is no payload type: {reason}") from None
        except Lost as lost:
            raise PayloadError(f"{name_of(kind)} cannot travel: {lost}", mend=lost.fix) from None

    @property
    def proven(self) -> bool:
        """Whether values of this type need not be read back before they are sent."""
        return self._faith.proven

    def read(self, data: Json) -> Any:
        """
        Turn JSON into the author's type.

        Raises:
            PayloadError: it does not fit.
        """
        try:
            return self._read(to_json(data))
        except ValidationError as error:
            raise PayloadError(_sentence(self.kind, error), _misfit(self.kind)) from None
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            text = f"cannot be read as {name_of(self.kind)} ({type(error).__name__})"
            raise PayloadError(text) from None

    def accept(self, given: Any) -> Any:
        """
        Turn what a caller has in hand, an instance or its parts, into the author's type.

        Raises:
            PayloadError: it does not fit.
        """
        try:
            return self._adapter.validate_python(given, by_alias=True)
        except ValidationError as error:
            raise PayloadError(_sentence(self.kind, error), _misfit(self.kind)) from None
        except Exception as error:  # noqa: BLE001 - the same
            text = f"cannot be read as {name_of(self.kind)} ({type(error).__name__})"
            raise PayloadError(text) from None

    def write(self, value: Any, limits: Limits | None = None) -> Json:
        """
        Turn a value of the author's type into JSON from which the same value is read.

        Raises:
            PayloadError: *value* is not of that type, would be altered on its way, holds what
                cannot be stored, or its JSON is beyond *limits* (None: not checked here).
        """
        try:
            return self._written(value, limits)
        except PayloadError:
            raise
        except ValidationError as error:
            given = name_of(type(value))
            text, brief = _sentence(self.kind, error), _misfit(self.kind)
            raise PayloadError(f"{given} {text}", f"{given} {brief}") from None
        except PydanticSerializationError:
            text = f"{_misfit(self.kind)} (it cannot be written as JSON)"
            raise PayloadError(f"{name_of(type(value))} {text}") from None
        except Exception as error:  # noqa: BLE001 - serializers and `__eq__` are the author's
            text = f"cannot be written as {name_of(self.kind)} ({type(error).__name__})"
            raise PayloadError(f"{name_of(type(value))} {text}") from None

    def schema(self, mode: Literal["validation", "serialization"]) -> Json:
        """
        Give the JSON Schema (2020-12) of what is read (validation) or written (serialization).

        A type that pydantic has no schema for may be any JSON: the empty schema. So may one whose
        schema raises, as the author's own schema functions may.
        """
        try:
            found: Json = self._adapter.json_schema(by_alias=True, mode=mode)
        except Exception:  # noqa: BLE001 - the author's functions may raise anything
            return {}
        return found if written(found) is not None else {}

    def _written(self, value: Any, limits: Limits | None) -> Json:
        faith = self._faith
        if faith.proven:
            # Without this look a forgotten return is written as null, and another model as {}.
            self._adapter.validate_python(value, strict=True, by_alias=False, by_name=True)
        data = self._dumped(value)
        if faith.sets:
            data = sort_sets(value, data)
        body = self._json(data)
        vague = faith.floats and _LONG.search(body)
        if not faith.proven or vague:
            self._prove(value, data, body, exact=faith.exact and not vague)
        if limits is not None and (found := excess(body, limits)):
            raise too_large(found.sentence)
        return data

    def _prove(self, value: Any, data: Json, body: bytes, *, exact: bool) -> None:
        """Read what was written back, and refuse the value when another one comes of it."""
        back = self._read(to_json(stored(data)) if _EXPONENT.search(body) else body)
        again = self._dumped(back)
        if self._faith.sets:
            again = sort_sets(back, again)
        if again != data or not (exact or same(value, back)):
            text = f"{name_of(type(value))} would arrive altered: JSON of it is read as another"
            raise PayloadError(f"{text} {name_of(self.kind)} ({altered(value, back)})", text)

    def _dumped(self, value: Any) -> Json:
        data: Json = self._adapter.dump_python(
            value, mode="json", by_alias=True, warnings="error", context=CONTEXT
        )
        return data

    def _read(self, body: bytes) -> Any:
        return self._adapter.validate_json(body, by_alias=True)

    def _json(self, data: Json) -> bytes:
        body = written(data)
        if body is None:
            raise PayloadError(f"{name_of(self.kind)} holds {NOT_STORABLE}")
        return body


_NOTHING = object()

NOT_STORABLE = (
    "what no database takes (NUL, half a surrogate pair, an integer beyond 64 bits, NaN, Infinity)"
)


def written(data: Json) -> bytes | None:
    """Write JSON as bytes; None when JSON writers or databases do not take it."""
    try:
        body = to_json(data)
    except (PydanticSerializationError, ValueError):
        return None  # half a surrogate pair
    return body if not _SUSPECT.search(body) or storable(data) else None


def stored(data: Json) -> Json:
    """As jsonb gives it back: whole numbers without exponents, and so as integers of 64 bits."""
    if isinstance(data, float) and abs(data) >= 1e16:
        whole = int(Decimal(repr(data)))
        return whole if _is_number(whole) else data
    if isinstance(data, Mapping):
        return {name: stored(each) for name, each in data.items()}
    return [stored(each) for each in data] if isinstance(data, list) else data


def beyond(data: Json, limits: Limits) -> str:
    """Say which limit a value is beyond when it is sent as it is; empty when within all."""
    body = written(data)
    if body is None:
        return f"It holds {NOT_STORABLE}."
    found = excess(body, limits)
    return found.sentence if found else ""


def too_large(sentence: str) -> PayloadError:
    """The error for a payload that its participant would refuse to read."""
    return PayloadError(f"the payload is too large to be sent: {sentence.rstrip('.')}")


def storable(data: Json) -> bool:
    """
    Whether JSON writers and databases take it.

    Text is whole and without NUL, integers have 64 bits, other numbers are finite.
    """
    rest: list[Any] = [data]
    while rest:
        each = rest.pop()
        if isinstance(each, str):
            if not _whole(each):
                return False
        elif isinstance(each, Mapping):
            rest += [*each, *each.values()]
        elif isinstance(each, Sequence):
            rest += each
        elif not _is_number(each):
            return False
    return True


def _is_number(value: Any) -> bool:
    """Whether a number, True, False or None can be stored; anything else is not for here to say."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return not isinstance(value, float) or math.isfinite(value)


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def altered(value: Any, back: Any) -> str:
    """Name the first place, by fields, where a value differs from what would arrive."""
    path: list[str] = []
    while type(value) is type(back):
        mine, theirs = (dict(fields_of(each) or ()) for each in (value, back))
        place = next((n for n in mine if n not in theirs or not same(mine[n], theirs[n])), None)
        if place is None:
            break
        path.append(place)
        value, back = mine[place], theirs.get(place, _NOTHING)
    return ".".join(path) or "body"


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
