"""JSON that a user gives on the command line: as it stands, from @FILE, or from - (stdin)."""

import sys
from pathlib import Path

import orjson

from saga_engine.errors import ConfigurationError
from saga_engine.saga.vocabulary import Json


def json_of(typed: str, option: str) -> Json:
    """
    Read the JSON of an option.

    Raises:
        ConfigurationError: it is no JSON, or the file cannot be read.
    """
    try:
        read: Json = orjson.loads(_bytes(typed))
    except OSError as error:
        raise ConfigurationError(
            f"{option}: {typed[1:]} cannot be read: {error.strerror}."
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{option} is not JSON: {error}. Give JSON, @FILE, or - to read it from stdin."
        ) from None
    return read


def _bytes(typed: str) -> bytes:
    if typed == "-":
        return sys.stdin.buffer.read()
    if typed.startswith("@"):
        return Path(typed[1:]).read_bytes()
    return typed.encode()
