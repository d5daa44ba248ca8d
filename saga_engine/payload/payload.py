"""
Typed payloads at the boundary of the core: JSON in, the author's types out, and back.

Values are written in this module only. What a type says is what arrives: a value is written so that
its type reads it back unchanged, or refused with a sentence. Names are aliases in both directions.
Errors name the path and the rule, never the value, so that they may be shown to everyone who may
see the run.
"""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, to_json

from saga_engine.payload.equality import fields_of, is_same_value, sort_sets
from saga_engine.payload.json_schema import PayloadJsonSchema, is_any_json
from saga_engine.payload.limits import BodyLimits, find_violation
from saga_engine.payload.round_trip import RoundTripError, analyze_schema
from saga_engine.payload.samples import SERIALIZATION_CONTEXT
from saga_engine.vocabulary import Json

_EXPONENT = re.compile(rb"[0-9][eE][-+0-9]")
_LONG_DIGITS = re.compile(rb"[0-9]{16}")
_POSSIBLY_UNSTORABLE = re.compile(rb"NaN|Infinity|\\u0000|[0-9]{19}")
"""JSON that writers or databases may refuse; what matches may also be harmless text."""


class PayloadError(ValueError):
    """
    A payload does not fit its type. The text has no values.

    It may name a path in the payload, and so the keys of its objects; `text_without_paths` does
    not. `fix` is what an author can do about a type.
    """

    def __init__(
        self, text: str, text_without_paths: str = "", fix: str = "Use a pydantic model."
    ) -> None:
        super().__init__(text)
        self.text_without_paths = text_without_paths or text
        self.fix = fix


class PayloadType:
    """
    One payload type: anything pydantic understands (a model, a dataclass, a TypedDict, `dict`).

    Raises:
        PayloadError: pydantic cannot make a schema of the type, or no value of it, or of a part of
            it, could be read back unchanged from JSON.
    """

    __slots__ = ("_adapter", "_safety", "python_type")

    def __init__(self, python_type: Any) -> None:
        self.python_type = python_type
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(python_type)
            self._adapter.rebuild()  # an undefined name raises now, not at the first reply
            self._safety = analyze_schema(self._adapter.core_schema)
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise PayloadError(
                f"{type_name(python_type)} is not a payload type: {reason}"
            ) from None
        except RecursionError:
            raise PayloadError(
                f"{type_name(python_type)} is not a payload type: its types contain one another"
                " in more levels than can be read",
                fix="Use fewer levels, or a model that contains itself.",
            ) from None
        except RoundTripError as problem:
            raise PayloadError(
                f"{type_name(python_type)} cannot be sent as JSON: {problem}", fix=problem.fix
            ) from None

    @property
    def lossless(self) -> bool:
        """Whether values of this type need not be read back before they are sent."""
        return self._safety.lossless

    @property
    def is_any_json(self) -> bool:
        """Whether it is `Any`, or a model of nothing else."""
        return is_any_json(self._adapter.core_schema)

    def read(self, data: Json) -> Any:
        """
        Turn JSON into the author's type.

        Raises:
            PayloadError: it does not fit.
        """
        try:
            return self._read(to_json(data))
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            raise self._unreadable(error) from None

    def read_text(self, text: str) -> Any:
        """
        Turn JSON that is still text into the author's type.

        Raises:
            PayloadError: it does not fit, or is not JSON that can be read.
        """
        try:
            return self._read(text)
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            raise self._unreadable(error) from None

    def validate(self, value: Any) -> Any:
        """
        Turn a caller's value, an instance or its parts, into the author's type.

        Raises:
            PayloadError: it does not fit.
        """
        try:
            return self._adapter.validate_python(value, by_alias=True)
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            raise self._unreadable(error) from None

    def write(self, value: Any, limits: BodyLimits | None = None) -> Json:
        """
        Turn a value of the author's type into JSON from which the same value is read.

        Raises:
            PayloadError: *value* is not of that type, would be altered when it is read, has what
                cannot be stored, or its JSON exceeds *limits* (None: not checked here).
        """
        try:
            return self._serialize(value, limits)
        except PayloadError:
            raise
        except ValidationError as error:
            text = self._unwritable_text(value)
            raise PayloadError(f"{text} ({_problem_paths(error)})", text) from None
        except PydanticSerializationError:
            text = f"{self._unwritable_text(value)} (it cannot be written as JSON)"
            raise PayloadError(text) from None
        except Exception as error:  # noqa: BLE001 - serializers and `__eq__` are the author's
            text = f"cannot be written as {type_name(self.python_type)} ({type(error).__name__})"
            raise PayloadError(f"{type_name(type(value))} {text}") from None

    def schema(self, mode: Literal["validation", "serialization"]) -> Json:
        """
        Give the JSON Schema (2020-12) of what is read (validation) or written (serialization).

        `json_schema` lists what it says beyond pydantic's.

        A type that pydantic has no schema for may be any JSON: the empty schema. So may one whose
        schema raises, as the author's own schema functions may.
        """
        try:
            schema: Json = self._adapter.json_schema(
                by_alias=True, mode=mode, schema_generator=PayloadJsonSchema
            )
        except Exception:  # noqa: BLE001 - the author's functions may raise anything
            return {}
        return schema if to_json_bytes(schema) is not None else {}

    def _serialize(self, value: Any, limits: BodyLimits | None) -> Json:
        safety = self._safety
        if safety.lossless:
            # Without this check a forgotten return is written as null, and another model as {}.
            self._adapter.validator.validate_python(
                value, strict=True, by_alias=False, by_name=True
            )
        data = self._dump(value)
        if safety.has_sets:
            data = sort_sets(value, data)
        body = self._to_json_bytes(data)
        float_is_ambiguous = safety.has_floats and _LONG_DIGITS.search(body)
        # In a model made without validation, pydantic writes None in the place of any type.
        if not safety.lossless or float_is_ambiguous or b"null" in body:
            self._check_round_trip(
                value, data, body, json_comparable=safety.json_comparable and not float_is_ambiguous
            )
        if limits is not None and (found := find_violation(body, limits)):
            raise too_large_error(found.message)
        return data

    def _check_round_trip(
        self, value: Any, data: Json, body: bytes, *, json_comparable: bool
    ) -> None:
        """Read the JSON back, and refuse the value if another one is read."""
        value_read_back = self._read(to_json(as_jsonb(data)) if _EXPONENT.search(body) else body)
        data_read_back = self._dump(value_read_back)
        if self._safety.has_sets:
            data_read_back = sort_sets(value_read_back, data_read_back)
        if data_read_back != data or not (json_comparable or is_same_value(value, value_read_back)):
            text = f"{type_name(type(value))} would arrive altered: JSON of it is read as another"
            raise PayloadError(
                f"{text} {type_name(self.python_type)}"
                f" ({first_difference(value, value_read_back)})",
                text,
            )

    def _dump(self, value: Any) -> Json:
        data: Json = self._adapter.serializer.to_python(
            value, mode="json", by_alias=True, warnings="error", context=SERIALIZATION_CONTEXT
        )
        return data

    def _unreadable(self, error: Exception) -> PayloadError:
        if isinstance(error, ValidationError):
            text = _validation_message(self.python_type, error)
            return PayloadError(text, _mismatch_text(self.python_type))
        name = type_name(self.python_type)
        return PayloadError(f"cannot be read as {name} ({type(error).__name__})")

    def _read(self, body: str | bytes) -> Any:
        # The adapter's own methods check their arguments first, for a quarter of the time.
        return self._adapter.validator.validate_json(body, by_alias=True)

    def _unwritable_text(self, value: Any) -> str:
        value_type = type(value)
        if value_type is not self.python_type or value_type.__module__ == "builtins":
            return f"{type_name(value_type)} {_mismatch_text(self.python_type)}"
        return (
            f"{type_name(value_type)} was made or changed without validation, and does not fit its"
            " class"
        )

    def _to_json_bytes(self, data: Json) -> bytes:
        body = to_json_bytes(data)
        if body is None:
            raise PayloadError(f"{type_name(self.python_type)} holds {UNSTORABLE_VALUES}")
        return body


_MISSING = object()

UNSTORABLE_VALUES = (
    "what no database accepts"
    " (NUL, half a surrogate pair, an integer beyond 64 bits, NaN, Infinity)"
)


def to_json_bytes(data: Json) -> bytes | None:
    """Write JSON as bytes; None if JSON writers or databases refuse it."""
    try:
        body = to_json(data)
    except (PydanticSerializationError, ValueError):
        return None  # half a surrogate pair
    return body if not _POSSIBLY_UNSTORABLE.search(body) or is_storable(data) else None


def as_jsonb(data: Json) -> Json:
    """As jsonb returns it: whole numbers without exponents, and so as integers of 64 bits."""
    if isinstance(data, float) and abs(data) >= 1e16:
        integer = int(Decimal(repr(data)))
        return integer if _is_storable_number(integer) else data
    if isinstance(data, Mapping):
        return {name: as_jsonb(each) for name, each in data.items()}
    return [as_jsonb(each) for each in data] if isinstance(data, list) else data


def limit_problem(data: Json, limits: BodyLimits) -> str:
    """Which limit a value exceeds when it is sent unchanged; empty if none."""
    body = to_json_bytes(data)
    if body is None:
        return f"It holds {UNSTORABLE_VALUES}."
    found = find_violation(body, limits)
    return found.message if found else ""


def too_large_error(sentence: str) -> PayloadError:
    """The error for a payload that its participant would refuse to read."""
    return PayloadError(f"the payload is too large to be sent: {sentence.rstrip('.')}")


def is_storable(data: Json) -> bool:
    """
    Whether JSON writers and databases accept it.

    Text is whole and without NUL, integers have 64 bits, other numbers are finite.
    """
    rest: list[Any] = [data]
    while rest:
        each = rest.pop()
        if isinstance(each, str):
            if not _is_storable_text(each):
                return False
        elif isinstance(each, Mapping):
            rest += [*each, *each.values()]
        elif isinstance(each, Sequence):
            rest += each
        elif not _is_storable_number(each):
            return False
    return True


def _is_storable_number(value: Any) -> bool:
    """Whether a number, True, False or None can be stored; true for anything else."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return not isinstance(value, float) or math.isfinite(value)


def _is_storable_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def first_difference(value: Any, value_read_back: Any) -> str:
    """The path, by fields, of the first difference between a value and what would arrive."""
    path: list[str] = []
    while type(value) is type(value_read_back):
        mine, theirs = (dict(fields_of(each) or ()) for each in (value, value_read_back))
        field_name = next(
            (n for n in mine if n not in theirs or not is_same_value(mine[n], theirs[n])), None
        )
        if field_name is None:
            break
        path.append(field_name)
        value, value_read_back = mine[field_name], theirs.get(field_name, _MISSING)
    return ".".join(path) or "body"


def type_name(python_type: Any) -> str:
    """The name of a type in messages."""
    return python_type.__name__ if isinstance(python_type, type) else str(python_type)


def _validation_message(python_type: Any, error: ValidationError) -> str:
    return f"{_mismatch_text(python_type)} ({_problem_paths(error)})"


def _problem_paths(error: ValidationError) -> str:
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    # A custom validator's message may quote the value; the code of its type cannot.
    named = [f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['type']}" for p in problems[:3]]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{'; '.join(named)}{more}"


def _mismatch_text(python_type: Any) -> str:
    return f"does not fit {type_name(python_type)}"
