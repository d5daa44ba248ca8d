"""
The user's modules: imported by name, and searched for sagas or participants.

`MODULE` takes every object of the wanted kind in it, `MODULE:NAME` the one bound to that name. What
goes wrong is the user's to mend, so the error says where in which file.
"""

import importlib
import traceback
from types import ModuleType
from typing import TypeVar

from saga_engine.errors import ConfigurationError, SagaEngineError

Found = TypeVar("Found")


def load(spec: str, kind: type[Found]) -> list[Found]:
    """
    Import `MODULE[:NAME]` and return its objects of *kind*, in the order they are bound.

    Raises:
        ConfigurationError: it does not import, or has no such object.
        DefinitionError: an object in it breaks a rule while it is declared.
    """
    name, _, attribute = spec.partition(":")
    _no_file(name, attribute)
    module = _import(name)
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


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SagaEngineError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"There is no module {name!r}. Run the command in the directory that holds"
                f" {name.partition('.')[0]!r}, or set PYTHONPATH."
            ) from None
        raise ConfigurationError(_does_not_import(name, error)) from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(_does_not_import(name, error)) from error


def _does_not_import(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"Module {name!r} does not import: {error.filename}:{error.lineno}: {error.msg}."
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}:{last.lineno}"
    return f"Module {name!r} does not import: {type(error).__name__}: {error} ({where})."
