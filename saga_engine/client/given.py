"""
What a caller hands over, as JSON: checked as far as the caller's side can.

With a Saga object the input is validated here and now; by name only the engine can tell. JSON goes
as it came, without defaults filled in, so that the same input has the same digest whoever sends it.
"""

from collections.abc import Mapping
from uuid import UUID

from pydantic import BaseModel

from saga_engine.errors import ConfigurationError, InvalidInput
from saga_engine.saga.definition import Saga
from saga_engine.saga.payload import PayloadError, storable
from saga_engine.saga.vocabulary import Json

KEY_BYTES = 1000
"""The longest key; docs/protocol.md, section "Requests"."""


def name_and_version(saga: str | Saga, version: int | None) -> tuple[str, int | None]:
    """
    Which saga is meant.

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


def input_json(saga: str | Saga, given: object) -> Json:
    """
    Turn an input into JSON.

    Raises:
        InvalidInput: it does not fit the saga, or is nothing that JSON and PostgreSQL can hold.
    """
    try:
        data = _written(saga, given)
    except PayloadError as error:
        assert isinstance(saga, Saga), "only a definition knows what fits"
        raise InvalidInput(f"The input of saga {saga.name!r} {error}.") from None
    if not _is_json(data) or not storable(data):
        raise InvalidInput(
            "The input is not JSON that can be stored: it holds another type, a NUL or half a"
            " character. Give a pydantic model, or plain JSON values."
        )
    return data


def key_text(key: str | None) -> str | None:
    """
    Check a business key.

    Raises:
        InvalidInput: it is empty, too long or cannot be stored.
    """
    if key is not None and (not storable(key) or not 0 < len(key.encode()) <= KEY_BYTES):
        raise InvalidInput(f"A key is a text of 1 to {KEY_BYTES} bytes without NUL.")
    return key


def run_uuid(run_id: UUID | str) -> UUID:
    """
    Read a run id.

    Raises:
        InvalidInput: it is no UUID.
    """
    try:
        return run_id if isinstance(run_id, UUID) else UUID(run_id)
    except ValueError:
        raise InvalidInput(f"{run_id!r} is no run id, which is a UUID.") from None


def _written(saga: str | Saga, given: object) -> Json:
    if isinstance(saga, str):
        data: Json = given.model_dump(mode="json") if isinstance(given, BaseModel) else given  # type: ignore[assignment]  # `_is_json` looks
        return data
    read = saga.input.read(given)  # type: ignore[arg-type]  # it takes instances of its type as well
    return given if _is_json(given) else saga.input.write(read)  # type: ignore[return-value]  # just looked at


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, bool | str | float):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(each) for key, each in value.items())
    return isinstance(value, list | tuple) and all(map(_is_json, value))
