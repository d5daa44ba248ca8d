"""
The user's modules: imported by name, and searched for sagas or participants.

`MODULE` takes every object of the wanted kind in it, `MODULE:NAME` the one bound to that name. What
goes wrong is the user's to mend, so the error says where in which file. A module may exit, raise
anything or not return: the import is interrupted after a time, where signals allow it (in the main
thread). KeyboardInterrupt is the person at the terminal, and passes.
"""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import TypeVar

from saga_engine.alarm_signal import borrowed
from saga_engine.errors import ConfigurationError, SagaEngineError

Found = TypeVar("Found")

GIVEN_UP = 3
"""Interrupts of one import; a module that swallows them all ends the process."""


class Interrupted(BaseException):
    """The import takes too long. No Exception, so that `except Exception` does not stop it."""


def load(spec: str, kind: type[Found], timeout: float) -> list[Found]:
    """
    Import `MODULE[:NAME]` and return its objects of *kind*, in the order they are bound.

    Args:
        timeout: seconds the import may take, from the setting import_timeout. A module that cannot
            be interrupted ends the process with the sentence and exit code of the
            ConfigurationError.

    Raises:
        ConfigurationError: it does not import, or has no such object.
        DefinitionError: an object in it breaks a rule while it is declared.
    """
    name, _, attribute = spec.partition(":")
    _no_file(name, attribute)
    module = _import(name, timeout)
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, kind):
            raise ConfigurationError(f"{name} has no {kind.__name__} named {attribute!r}.")
        return [found]
    objects = {id(value): value for value in vars(module).values() if isinstance(value, kind)}
    if not objects:
        raise ConfigurationError(
            f"{name} declares no {kind.__name__}. Name the module that does, or MODULE:NAME."
        )
    return list(objects.values())


def _no_file(name: str, attribute: str) -> None:
    """Refuse a path, and say which module it is."""
    if "/" not in name and not name.endswith(".py"):
        return
    module = name.removesuffix(".py").removeprefix("./").strip("/").replace("/", ".")
    spec = f"{module}:{attribute}" if attribute else module
    raise ConfigurationError(
        f"{name} is a file, and a module is wanted. From the directory that holds"
        f" {module.partition('.')[0]!r}, give {spec}."
    )


def _import(name: str, timeout: float) -> ModuleType:
    try:
        with _interrupted(name, timeout):
            return importlib.import_module(name)
    except (SagaEngineError, KeyboardInterrupt):
        raise
    except Interrupted:
        raise ConfigurationError(_too_long(name, timeout)) from None
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"There is no module {name!r}. Run the command in the directory that holds"
                f" {name.partition('.')[0]!r}, or set PYTHONPATH."
            ) from None
        raise ConfigurationError(_does_not_import(name, error)) from error
    except BaseException as error:
        raise ConfigurationError(_does_not_import(name, error)) from error


@contextmanager
def _interrupted(name: str, timeout: float) -> Iterator[None]:
    """Interrupt what takes too long, if this is the main thread; again, if that is swallowed."""
    interrupts = 0

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > GIVEN_UP:
            os.write(sys.stderr.fileno(), f"saga-engine: {_too_long(name, timeout)}\n".encode())
            os._exit(ConfigurationError.exit_code)
        raise Interrupted

    with borrowed(ring) as rings:
        if rings:
            signal.setitimer(signal.ITIMER_REAL, timeout, min(timeout, 1.0))
        yield


def _too_long(name: str, timeout: float) -> str:
    return (
        f"Module {name!r} does not import: it did not return within {timeout:g} s"
        " (SAGA_ENGINE_IMPORT_TIMEOUT). Take what it waits for out of the module's top level."
    )


def _does_not_import(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"Module {name!r} does not import: {error.filename}:{error.lineno}: {error.msg}."
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}:{last.lineno}"
    try:
        text = f": {error}"
    except BaseException:  # noqa: BLE001 - its text is made by the user's code as well
        text = ""
    return f"Module {name!r} does not import: {type(error).__name__[:100]}{text} ({where})."
