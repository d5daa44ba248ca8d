"""
The calls of `upsert`, `put` and so on in the source of a function, checked before it is called.

A misspelt column would otherwise be found by the first event that needs it. What the source does
not show, such as a key that is computed, is checked when the function is called.
"""

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Table

from saga_engine.errors import DefinitionError, raise_or_collect
from saga_engine.events.projections import change
from saga_engine.events.projections.change import ChangeKind
from saga_engine.events.projections.table_shape import TableProblem, shape_of


class _Names(NamedTuple):
    """
    The columns that an argument names.

    Args:
        shown: those that the source shows.
        are_all: whether there are no others.
    """

    shown: frozenset[str] = frozenset()
    are_all: bool = True

    def with_others(self, others: "_Names") -> "_Names":
        """Return the names of two dicts that are merged."""
        return _Names(self.shown | others.shown, self.are_all and others.are_all)


_UNKNOWN = _Names(are_all=False)


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
    bound, dicts = _bound_names(tree), _dicts_by_name(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        location = f"{code.co_filename}:{code.co_firstlineno + call.lineno - 1}"
        try:
            _check_call(call, function, bound, dicts, tables)
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
    dicts: Mapping[str, ast.Dict],
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
        _names(arguments[argument], dicts) if argument in arguments else _Names()
        for argument in ("key", signature.put, signature.add)
    )
    shape = shape_of(table)
    if key.are_all and put.are_all and add.are_all:
        if signature.kind is ChangeKind.UPDATE and not put.shown | add.shown:
            raise TableProblem(f"The change of {table.fullname} names no column.", "Name one.")
        change.check_names(shape, signature.kind, key=key.shown, put=put.shown, add=add.shown)
        return
    # What the source does not show may be the other columns, so only those that it shows are wrong.
    shape.check_key(key.shown if key.are_all else key.shown.union(shape.key))
    shape.check_columns(put.shown | add.shown)
    shape.check_added(add.shown)


def check_table(table: Table, tables: Sequence[Table]) -> None:
    """Raise TableProblem unless a projection with *tables* may change *table*."""
    if table not in tables:
        raise TableProblem(
            f"Table {table.fullname} is not one of the projection's tables.",
            "Add it to tables=[...], and to no other projection.",
        )


def _names(node: ast.expr, dicts: Mapping[str, ast.Dict]) -> _Names:
    """The keys of a dict, as far as the source shows them."""
    match node:
        case ast.Dict(keys=keys, values=values):
            names = _Names()
            for key, value in zip(keys, values, strict=True):
                names = names.with_others(_names_of_item(key, value, dicts))
            return names
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _names(left, dicts).with_others(_names(right, dicts))
        case ast.IfExp(body=body, orelse=other):
            return _names(body, dicts).with_others(_names(other, dicts))._replace(are_all=False)
        case ast.Name(id=name) if name in dicts:
            return _names(dicts[name], {})
    return _UNKNOWN


def _names_of_item(key: ast.expr | None, value: ast.expr, dicts: Mapping[str, ast.Dict]) -> _Names:
    """The names of one item of a dict; without a key it is another dict: `**others`."""
    if key is None:
        return _names(value, dicts)
    return _Names(frozenset({str(key.value)})) if isinstance(key, ast.Constant) else _UNKNOWN


def _dicts_by_name(tree: ast.AST) -> Mapping[str, ast.Dict]:
    """The dicts that have a name, as in `row = {...}`, and that nothing else can change."""
    nodes = [*ast.walk(tree)]
    assigned = {
        each.targets[0].id: each.value
        for each in nodes
        if isinstance(each, ast.Assign)
        and isinstance(each.targets[0], ast.Name)
        and isinstance(each.value, ast.Dict)
    }
    uses = Counter(each.id for each in nodes if isinstance(each, ast.Name))
    arguments = Counter(
        each.value.id
        for each in nodes
        if isinstance(each, ast.keyword) and isinstance(each.value, ast.Name)
    )
    return {name: each for name, each in assigned.items() if uses[name] == arguments[name] + 1}


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
