"""
The arguments of a caller, checked as far as possible and turned into JSON.

With a Saga object the input is validated here; with a name only the engine can validate it. JSON is
sent unchanged, without defaults, so that the same input has the same digest for all senders.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from saga_engine.errors import ConfigurationError, InvalidInput
from saga_engine.payload.limits import BodyLimits
from saga_engine.payload.payload import PayloadError, PayloadType, is_storable, limit_problem
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import Json


def name_and_version(saga: str | Saga, version: int | None) -> tuple[str, int | None]:
    """
    Return the name and the version of a saga.

    Raises:
        ConfigurationError: *version* contradicts the Saga object.
    """
    if isinstance(saga, str):
        return saga, version
    if version not in (None, saga.version):
        raise ConfigurationError(
            f"Version {version} was asked for with the definition of version {saga.version}."
            " Leave the version out, or name the saga by a string."
        )
    return saga.name, saga.version


def input_json(saga: str | Saga, value: object) -> Json:
    """
    Turn an input into JSON.

    Raises:
        InvalidInput: it does not match the saga, would be altered in transit, or cannot be
            represented in JSON or stored in PostgreSQL.
    """
    try:
        data = _as_json(saga, value)
    except PayloadError as error:
        name = saga if isinstance(saga, str) else saga.name
        raise InvalidInput(f"The input of saga {name!r} {error}.") from None
    if not _is_json(data) or not is_storable(data):
        raise InvalidInput(
            "The input is not JSON that can be stored: it contains another type, a NUL, half a"
            " character, NaN or Infinity. Give a pydantic model, or plain JSON values."
        )
    return data


def check_limits(data: Json, limits: BodyLimits) -> None:
    """
    Check a body against the limits of its reader.

    Raises:
        InvalidInput: it exceeds one of them.
    """
    problem = limit_problem(data, limits)
    if problem:
        raise InvalidInput(f"The request is too large. {problem}")


def checked_key(key: str | None, max_bytes: int) -> str | None:
    """
    Check a business key.

    Args:
        key: the key, or None without one.
        max_bytes: the setting max_request_text_bytes.

    Raises:
        InvalidInput: it is empty, too long or cannot be stored.
    """
    if key is not None and (not is_storable(key) or not 0 < len(key.encode()) <= max_bytes):
        raise InvalidInput(
            f"A key is a text of 1 to {max_bytes} bytes (max_request_text_bytes) without NUL."
        )
    return key


def parse_run_id(run_id: UUID | str) -> UUID:
    """
    Read a run id.

    Raises:
        InvalidInput: it is not a UUID.
    """
    try:
        return run_id if isinstance(run_id, UUID) else UUID(run_id)
    except ValueError:
        raise InvalidInput(f"{run_id!r} is not a run id, which is a UUID.") from None


def _as_json(saga: str | Saga, value: object) -> Json:
    if _is_json(value):
        if isinstance(saga, Saga):
            saga.input_type.read(value)  # type: ignore[arg-type]  # just checked
        return value  # type: ignore[return-value]  # the same
    if isinstance(saga, Saga):
        return saga.input_type.write(saga.input_type.validate(value))
    if hasattr(type(value), "__pydantic_core_schema__"):
        model: Any = type(value)
        return _payload_type(model).write(
            value
        )  # without a definition, only the instance has a type
    return value  # type: ignore[return-value]  # `input_json` checks it


@lru_cache(maxsize=256)
def _payload_type(model: type) -> PayloadType:
    return PayloadType(model)


def _is_json(value: object) -> bool:
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, Mapping):
            if not all(isinstance(key, str) for key in each):
                return False
            stack += each.values()
        elif isinstance(each, list | tuple):
            stack += each
        elif each is not None and not isinstance(each, bool | str | float | int):
            return False
    return True
