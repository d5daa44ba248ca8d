"""
Importing the user's modules, and finding sagas, aggregates or participants in them.

`MODULE` selects every object of a kind in it, `MODULE:NAME` the one with that name. The user must
fix what fails, so an error names the file and line. A module may exit, raise anything or not
return: in the main thread, where signals can do it, the import is interrupted after a timeout.
KeyboardInterrupt comes from the person at the terminal and is not caught.
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

from saga_engine.alarm_signal import borrow_alarm
from saga_engine.errors import ConfigurationError, SagaEngineError

Found = TypeVar("Found")

MAX_INTERRUPTS = 3
"""Interrupts of one import; if the module swallows them all, the process ends."""


class ImportInterrupted(BaseException):
    """The import takes too long. A BaseException, so that `except Exception` does not catch it."""


def load_objects(
    spec: str, kind: type[Found] | tuple[type[Found], ...], timeout: float
) -> list[Found]:
    """
    Import `MODULE[:NAME]` and return its objects of *kind*, in the order they are bound.

    Args:
        spec: `MODULE` or `MODULE:NAME`.
        kind: the type of the objects, or several types.
        timeout: seconds for the import, the setting import_timeout. If a module cannot be
            interrupted, the process ends with the text and exit code of the ConfigurationError.

    Raises:
        ConfigurationError: it cannot be imported, or has no such object.
        DefinitionError: an object in it breaks a rule while it is declared.
    """
    name, _, attribute = spec.partition(":")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wanted = " or ".join(", ".join(each.__name__ for each in kinds).rsplit(", ", 1))
    _refuse_file_path(name, attribute)
    module = _import(name, timeout)
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, kinds):
            raise ConfigurationError(f"{name} has no {wanted} named {attribute!r}.")
        return [found]
    objects = {id(value): value for value in vars(module).values() if isinstance(value, kinds)}
    if not objects:
        raise ConfigurationError(
            f"{name} declares no {wanted}. Name the module that does, or MODULE:NAME."
        )
    return list(objects.values())


def _refuse_file_path(name: str, attribute: str) -> None:
    """Refuse a path, and name the module instead."""
    if "/" not in name and not name.endswith(".py"):
        return
    module = name.removesuffix(".py").removeprefix("./").strip("/").replace("/", ".")
    spec = f"{module}:{attribute}" if attribute else module
    raise ConfigurationError(
        f"{name} is a file; name a module instead. From the directory that contains"
        f" {module.partition('.')[0]!r}, give {spec}."
    )


def _import(name: str, timeout: float) -> ModuleType:
    try:
        with _interrupt_after_timeout(name, timeout):
            return importlib.import_module(name)
    except (SagaEngineError, KeyboardInterrupt):
        raise
    except ImportInterrupted:
        raise ConfigurationError(_import_timeout_message(name, timeout)) from None
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"There is no module {name!r}. Run the command in the directory that holds"
                f" {name.partition('.')[0]!r}, or set PYTHONPATH."
            ) from None
        raise ConfigurationError(_import_error_message(name, error)) from error
    except BaseException as error:
        raise ConfigurationError(_import_error_message(name, error)) from error


@contextmanager
def _interrupt_after_timeout(name: str, timeout: float) -> Iterator[None]:
    """Interrupt an import in the main thread after a timeout; again if it swallows that."""
    interrupts = 0

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > MAX_INTERRUPTS:
            os.write(
                sys.stderr.fileno(),
                f"saga-engine: {_import_timeout_message(name, timeout)}\n".encode(),
            )
            os._exit(ConfigurationError.exit_code)
        raise ImportInterrupted

    with borrow_alarm(on_alarm) as alarm_available:
        if alarm_available:
            signal.setitimer(signal.ITIMER_REAL, timeout, min(timeout, 1.0))
        yield


def _import_timeout_message(name: str, timeout: float) -> str:
    return (
        f"Module {name!r} does not import: it did not return within {timeout:g} s"
        " (SAGA_ENGINE_IMPORT_TIMEOUT). Move what it waits for out of the module's top level."
    )


def _import_error_message(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"Module {name!r} does not import: {error.filename}:{error.lineno}: {error.msg}."
    last = traceback.extract_tb(error.__traceback__)[-1]
    location = f"{last.filename}:{last.lineno}"
    try:
        text = f": {error}"
    except BaseException:  # noqa: BLE001 - the user's code makes the text, too
        text = ""
    return f"Module {name!r} does not import: {type(error).__name__[:100]}{text} ({location})."
