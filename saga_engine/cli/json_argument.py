"""JSON that a user gives on the command line: as it stands, from @FILE, or from - (stdin)."""

import errno
import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import orjson

from saga_engine.errors import ConfigurationError
from saga_engine.payload.payload import storable
from saga_engine.vocabulary import Json

_LONG = re.compile(rb"[0-9]{19}")

READ_MAX = 134_217_728
"""Bytes that are read of a file: the most that `body_bytes` can allow."""


def json_of(typed: str, option: str) -> Json:
    """
    Read the JSON of an option.

    Raises:
        ConfigurationError: it is no JSON, the file cannot be read, or a number in it would be
            altered: an integer beyond 64 bits is read as the nearest double.
    """
    try:
        text = _bytes(typed)
        read: Json = orjson.loads(text)
        exact: Json = json.loads(text) if _LONG.search(text) else read
    except OSError as error:
        raise ConfigurationError(
            f"{option}: {'stdin' if typed == '-' else typed[1:]} cannot be read: {error.strerror}."
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{option} is not JSON: {error}. Give JSON, @FILE, or - to read it from stdin."
        ) from None
    if not storable(exact):
        raise ConfigurationError(
            f"{option} holds an integer beyond 64 bits, or NUL. Give such a number as a text."
        )
    return read


def duration_of(typed: str, option: str) -> timedelta:
    """
    Read a duration: a number and s, m, h or d; without one, seconds.

    Raises:
        ConfigurationError: it is something else.
    """
    found = _DURATION.fullmatch(typed)
    if found is None:
        raise ConfigurationError(f"{option} is a number and s, m, h or d, as in 90s, 10m or 2h.")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2] or "s"])


_DURATION = re.compile(r"([0-9]{1,6})([smhd]?)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _bytes(typed: str) -> bytes:
    if typed == "-":
        return _bounded(sys.stdin.buffer)
    if typed.startswith("@"):
        with Path(typed[1:]).open("rb") as file:
            return _bounded(file)
    return typed.encode()


def _bounded(file: BinaryIO) -> bytes:
    """Read a file that may have no end, as a device has none."""
    found = file.read(READ_MAX + 1)
    if len(found) > READ_MAX:
        raise OSError(errno.EFBIG, f"it has more than {READ_MAX} bytes")
    return found
