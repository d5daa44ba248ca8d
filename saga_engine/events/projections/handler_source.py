"""
The calls of `upsert`, `put` and so on in the source of a function, checked before it is called.

A misspelt column would otherwise be found by the first event that needs it. What the source does
not show, such as a key that is computed, is checked when the function is called.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Table

from saga_engine.errors import DefinitionError, raise_or_collect
from saga_engine.events.projections import change
from saga_engine.events.projections.change import ChangeKind
from saga_engine.events.projections.table_shape import TableProblem, shape_of

_NONE: frozenset[str] = frozenset()


class _Signature(NamedTuple):
    """The kind of change that a function makes, and its arguments that name columns."""

    kind: ChangeKind
    put: str | None
    add: str | None


_FUNCTIONS: Mapping[Callable[..., Any], _Signature] = {
    change.insert: _Signature(ChangeKind.INSERT, "put", None),
    change.upsert: _Signature(ChangeKind.UPSERT, "put", "add"),
    change.put: _Signature(ChangeKind.UPDATE, "values", None),
    change.add: _Signature(ChangeKind.UPDATE, None, "values"),
    change.delete: _Signature(ChangeKind.DELETE, None, None),
}


def check_calls(function: Callable[..., Any], tables: Sequence[Table]) -> None:
    """
    Check each call in *function* whose table and columns its source shows.

    Args:
        function: a function of a projection.
        tables: the tables of the projection.

    Raises:
        DefinitionError: a call names a table of another projection or a column that the table
            does not have, at the line of the call.
    """
    code = function.__code__
    tree = _source(function)
    bound = _bound_names(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        location = f"{code.co_filename}:{code.co_firstlineno + call.lineno - 1}"
        try:
            _check_call(call, function, bound, tables)
        except TableProblem as problem:
            raise_or_collect(DefinitionError(str(problem), location=location, fix=problem.fix))


def _source(function: Callable[..., Any]) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):  # there is no source, or only a part of it
        return ast.Module([], [])


def _bound_names(tree: ast.AST) -> frozenset[str]:
    """The names that anything in a source binds: a name may mean another value there."""
    return frozenset(
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    )


def _check_call(
    call: ast.Call,
    function: Callable[..., Any],
    bound: frozenset[str],
    tables: Sequence[Table],
) -> None:
    called = _value(call.func, function, bound)
    signature = _FUNCTIONS.get(called) if inspect.isfunction(called) else None
    arguments = {each.arg: each.value for each in call.keywords}
    table_node = call.args[0] if call.args else arguments.get("table")
    table = table_node and _value(table_node, function, bound)
    if signature is None or not isinstance(table, Table) or None in arguments:
        return
    check_table(table, tables)
    key, put, add = (
        _names(arguments[argument]) if argument in arguments else _NONE
        for argument in ("key", signature.put, signature.add)
    )
    if key is not None and put is not None and add is not None:
        if signature.kind is ChangeKind.UPDATE and not put | add:
            raise TableProblem(f"The change of {table.fullname} names no column.", "Name one.")
        change.check_names(shape_of(table), signature.kind, key=key, put=put, add=add)


def check_table(table: Table, tables: Sequence[Table]) -> None:
    """Raise TableProblem unless a projection with *tables* may change *table*."""
    if table not in tables:
        raise TableProblem(
            f"Table {table.fullname} is not one of the projection's tables.",
            "Add it to tables=[...], and to no other projection.",
        )


def _names(node: ast.expr) -> frozenset[str] | None:
    """The keys of a dict that the source shows; None when it does not."""
    if not isinstance(node, ast.Dict):
        return None
    names = {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return frozenset(map(str, names)) if len(names) == len(node.keys) else None


def _value(node: ast.expr, function: Callable[..., Any], bound: frozenset[str]) -> Any:
    """What a name such as `orders` or `tables.orders` is in *function*; None if not known."""
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, function, bound)
        return vars(owner).get(node.attr) if inspect.ismodule(owner) else None
    if not isinstance(node, ast.Name) or node.id in bound.union(function.__code__.co_varnames):
        return None
    if node.id in function.__code__.co_freevars:
        cell = (function.__closure__ or ())[function.__code__.co_freevars.index(node.id)]
        try:
            return cell.cell_contents
        except ValueError:  # assigned later
            return None
    return function.__globals__.get(node.id)
