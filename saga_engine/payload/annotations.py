"""Whether a type annotation allows None."""

import types
from typing import Any, Union, get_args, get_origin


def split_optional(annotation: Any) -> tuple[Any, bool]:
    """`X | None` gives (X, True); anything else (itself, False)."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, annotation is Any
    members = [member for member in get_args(annotation) if member is not type(None)]
    optional = len(members) < len(get_args(annotation))
    return Union[tuple(members)], optional  # noqa: UP007 - the members are known only here
