"""Which modules a declaration is made of, and the source of one as a hash, taken at its import."""

import hashlib
import linecache
import sys
import typing
from collections.abc import Iterator
from typing import Any

_OTHERS = {*sys.stdlib_module_names, "pydantic", "pydantic_core", "saga_engine"}
"""Not the author's, and their types are in the schema of the state."""


def modules_of(declared: Any) -> set[str]:
    """
    Name the module of a function or class; for a class also those of its bases and fields.

    A validator that a base class or the class of a field has is as much a part of the state.
    """
    if not isinstance(declared, type):
        return {declared.__module__}
    found = {declared}
    pending = [declared]
    while pending:
        each = pending.pop()
        used = {*each.__mro__, *_field_classes(each)}
        new = {other for other in used - found if other.__module__.split(".")[0] not in _OTHERS}
        found |= new
        pending += new
    return {each.__module__ for each in found}


def _field_classes(owner: type) -> Iterator[type]:
    """Find the classes in the annotations of a class, also within list[...] and unions."""
    fields = getattr(owner, "model_fields", {})
    try:
        annotations = [*typing.get_type_hints(owner).values()]
    except Exception:  # noqa: BLE001 - a name of a function's scope; a model has resolved its own
        annotations = []
    pending = [*annotations, *(field.annotation for field in fields.values())]
    while pending:
        annotation = pending.pop()
        arguments = typing.get_args(annotation)
        if arguments:
            pending += arguments
        elif isinstance(annotation, type):
            yield annotation


def source_hash(module_name: str) -> str | None:
    """
    Hash the source of a loaded module; None if it has none, as in an interactive session.

    Called later, it could read the next version of the file, which this process does not run.
    """
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    linecache.checkcache(file)  # it may have been read before a reload
    lines = linecache.getlines(file, vars(module))
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None
