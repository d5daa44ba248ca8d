"""What a type annotation says of None."""

import types
from typing import Any, Union, get_args, get_origin


def without_none(kind: Any) -> tuple[Any, bool]:
    """`X | None` gives (X, True); anything else (itself, False)."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, kind is Any
    members = [member for member in get_args(kind) if member is not type(None)]
    optional = len(members) < len(get_args(kind))
    return Union[tuple(members)], optional  # noqa: UP007 - the members are known only here
