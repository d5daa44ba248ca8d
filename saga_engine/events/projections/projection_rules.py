"""
What makes projections valid. `check` is called before they are used.

Here are the rules between declarations. What is wrong with a function is refused when it is
declared, in `projection`.
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import ForeignKeyConstraint, Table
from sqlalchemy.exc import NoReferencedTableError

from saga_engine.errors import DefinitionError
from saga_engine.events.event_store.event_types import missing_upcasters
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_key import ENGINE_PREFIX
from saga_engine.events.projections.table_shape import TableProblem, shape_of
from saga_engine.events.readers.stored_name import STORED_NAME_RULE, is_stored_name

MAX_VERSION = 2**31 - 1

Problems = Iterator[DefinitionError]


def check(projections: Iterable[Projection]) -> None:
    """
    Check projections against every rule.

    Raises:
        DefinitionError: the first rule they break.
    """
    for problem in problems(projections):
        raise problem


def problems(projections: Iterable[Projection]) -> Problems:
    """Every rule that projections break, each alone and all together."""
    names: dict[str, Projection] = {}
    owners: dict[str, Projection] = {}
    for projection in projections:
        yield from _check_header(projection)
        yield from _check_tables(projection)
        yield from _check_foreign_keys(projection)
        if not projection.handlers and not projection.has_invalid_declarations:
            yield _problem(projection, "handles no event", "Declare functions with @....on(Event).")
        event_types = [each.event_type for each in projection.handlers.values() if each.event_type]
        yield from missing_upcasters(event_types)
        other = names.setdefault(projection.name, projection)
        if other is not projection:
            yield _problem(
                projection, f"is also declared at {other.source_location}", "Rename one."
            )
        yield from _check_owners(projection, owners)


def _check_header(projection: Projection) -> Problems:
    version: object = projection.version
    if not is_stored_name(projection.name):
        yield _problem(projection, "has an invalid name", STORED_NAME_RULE)
    elif projection.name.startswith(ENGINE_PREFIX):
        yield _problem(projection, "has a name of the engine's own projections", "Rename it.")
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        yield _problem(projection, f"has version={version!r}", "Count versions from 1.")
    if projection.on_poison not in tuple(OnPoison):
        allowed = " or ".join(repr(each.value) for each in OnPoison)
        yield _problem(projection, f"has on_poison={projection.on_poison!r}", f"Use {allowed}.")


def _check_tables(projection: Projection) -> Problems:
    if not projection.tables and not projection.has_invalid_declarations:
        yield _problem(projection, "has no table", "Give tables=[...]: every table it writes.")
    for table in projection.tables:
        declared: object = table
        if not isinstance(declared, Table):
            yield _problem(
                projection,
                f"has a {type(declared).__name__} in tables",
                "Give tables of SQLAlchemy Core; of a mapped class, its __table__.",
            )
            continue
        try:
            shape_of(table)
        except TableProblem as problem:
            yield DefinitionError(
                str(problem), location=projection.source_location, fix=problem.fix
            )


def _check_foreign_keys(projection: Projection) -> Problems:
    """
    Refuse foreign keys that change rows themselves.

    Folded changes are written in another order: a row that was moved away from its parent, which
    is then deleted, would be deleted with it.
    """
    if all(each.is_sql for each in projection.handlers.values()):
        return
    declared: tuple[object, ...] = projection.tables
    tables = [each for each in declared if isinstance(each, Table)]
    names = {each.fullname for each in tables}
    for table in tables:
        for constraint in table.foreign_key_constraints:
            changes = [each for each in (constraint.ondelete, constraint.onupdate) if each]
            is_passive = all(each.upper() in _PASSIVE_ACTIONS for each in changes)
            if not is_passive and (referred := _referred(constraint)) in names:
                yield _problem(
                    projection,
                    f"has a foreign key from {table.fullname} to {referred} that changes rows"
                    f" itself ({', '.join(changes)})",
                    "Declare it without ondelete and onupdate, and change those rows in the"
                    " function, or use async functions only.",
                )


def _referred(constraint: ForeignKeyConstraint) -> str:
    try:
        return constraint.referred_table.fullname
    except NoReferencedTableError:  # it is in another MetaData
        return constraint.elements[0].target_fullname.rpartition(".")[0]


_PASSIVE_ACTIONS = ("NO ACTION", "RESTRICT")


def _check_owners(projection: Projection, owners: dict[str, Projection]) -> Problems:
    """One projection writes a table: two would not be rebuilt, stopped or repeated together."""
    declared: tuple[object, ...] = projection.tables
    names = [each.fullname for each in declared if isinstance(each, Table)]
    for name in names:
        owner = owners.setdefault(name, projection)
        if owner is not projection or names.count(name) > 1:
            yield _problem(
                projection,
                f"writes table {name}, as does {owner.name!r} at {owner.source_location}",
                "Give each projection tables of its own.",
            )
            return


def _problem(projection: Projection, problem: str, fix: str) -> DefinitionError:
    text = f"Projection {str(projection.name)[:80]!r} {problem}."
    return DefinitionError(text, location=projection.source_location, fix=fix)
