"""JSON and durations on the command line; JSON also comes from @FILE or from - (stdin)."""

import errno
import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import orjson

from saga_engine.errors import ConfigurationError
from saga_engine.payload.payload import is_storable
from saga_engine.vocabulary import Json

_LONG_INTEGER = re.compile(rb"[0-9]{19}")

READ_MAX_BYTES = 134_217_728
"""Bytes read from a file: the largest allowed value of `max_body_bytes`."""


def parse_json(argument: str, option: str) -> Json:
    """
    Read the JSON of an option.

    Raises:
        ConfigurationError: it is not JSON, the file cannot be read, or a number would be altered:
            orjson reads an integer beyond 64 bits as the nearest double.
    """
    try:
        raw = _read_argument(argument)
        value: Json = orjson.loads(raw)
        exact_value: Json = json.loads(raw) if _LONG_INTEGER.search(raw) else value
    except OSError as error:
        raise ConfigurationError(
            f"{option}: {'stdin' if argument == '-' else argument[1:]} cannot be read:"
            f" {error.strerror}."
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{option} is not JSON: {error}. Give JSON, @FILE, or - to read it from stdin."
        ) from None
    if not is_storable(exact_value):
        raise ConfigurationError(
            f"{option} contains an integer beyond 64 bits, or NUL. Write such a number as a string."
        )
    return value


def parse_duration(argument: str, option: str) -> timedelta:
    """
    Read a duration: a number and s, m, h or d; without a unit, seconds.

    Raises:
        ConfigurationError: it is not a duration.
    """
    match_result = _DURATION.fullmatch(argument)
    if match_result is None:
        raise ConfigurationError(f"{option} is a number and s, m, h or d, as in 90s, 10m or 2h.")
    return timedelta(seconds=int(match_result[1]) * _UNIT_SECONDS[match_result[2] or "s"])


_DURATION = re.compile(r"([0-9]{1,6})([smhd]?)", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _read_argument(argument: str) -> bytes:
    if argument == "-":
        return _read_bounded(sys.stdin.buffer)
    if argument.startswith("@"):
        with Path(argument[1:]).open("rb") as file:
            return _read_bounded(file)
    return argument.encode()


def _read_bounded(file: BinaryIO) -> bytes:
    """Read a file up to READ_MAX_BYTES; a device such as /dev/zero has no end."""
    data = file.read(READ_MAX_BYTES + 1)
    if len(data) > READ_MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {READ_MAX_BYTES} bytes")
    return data
