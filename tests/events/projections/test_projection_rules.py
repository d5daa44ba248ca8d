"""Projections that cannot work are refused before they run, with the line of the declaration."""

from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, MetaData, Table, Text

from saga_engine.errors import DefinitionError
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.projections.change import Change
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_rules import check, problems
from tests.kit.read_model import BY_ID, METADATA, Placed, history_projection, orders_projection


def projection(name="orders", version=1, tables=(BY_ID,), **options) -> Projection:
    made = Projection(name, version=version, tables=tables, **options)

    @made.on(Placed)
    def placed(event: Placed, recorded: Recorded) -> Change: ...

    return made


def test_projections_with_tables_of_their_own_are_valid():
    check([orders_projection(), history_projection()])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "Orders"}, "'Orders' has an invalid name"),
        ({"name": "x" * 65}, "has an invalid name"),
        ({"version": 0}, "has version=0"),
        ({"version": "1"}, "has version='1'"),
        ({"on_poison": "ignore"}, "has on_poison='ignore'. Use 'stop' or 'park-stream'."),
        ({"tables": ()}, "has no table"),
        ({"tables": ("orders",)}, "has a str in tables"),
        ({"tables": (Table("a", MetaData(), Column("x", Text)),)}, "a has no primary key"),
        ({"tables": (BY_ID, BY_ID)}, "writes table order_by_id, as does 'orders'"),
    ],
)
def test_a_projection_that_breaks_a_rule_is_refused(options, problem):
    with pytest.raises(DefinitionError, match=problem) as caught:
        check([projection(**options)])
    assert caught.value.location.startswith(f"{__file__}:")
    assert caught.value.fix


def test_a_projection_without_functions_is_refused():
    with pytest.raises(DefinitionError, match="handles no event"):
        check([Projection("orders", version=1, tables=[BY_ID])])


def test_two_projections_share_neither_a_name_nor_a_table():
    found = [str(each) for each in problems([projection(), projection()])]
    assert "is also declared at" in found[0]
    assert "writes table order_by_id" in found[1]
    tables = [METADATA.tables["order_history"]]
    assert not list(problems([projection(), projection("history", tables=tables)]))


def family(**actions: Any) -> tuple[Table, Table]:
    metadata = MetaData()
    parents = Table("parents", metadata, Column("id", Text, primary_key=True))
    refers = ForeignKey("parents.id", **actions)
    children = Table(
        "children", metadata, Column("id", Text, primary_key=True), Column("parent", refers)
    )
    return parents, children


@pytest.mark.parametrize(
    "actions", [{"ondelete": "CASCADE"}, {"ondelete": "set null"}, {"onupdate": "CASCADE"}]
)
def test_a_foreign_key_that_changes_rows_of_folded_changes_is_refused(actions):
    """A row that moves away from a parent, which is then deleted, would be deleted with it."""
    (action,) = actions.values()
    problem = rf"from children to parents that changes rows itself \({action}\)"
    with pytest.raises(DefinitionError, match=problem):
        check([projection(tables=family(**actions))])
    _, children = family(**actions)
    check([projection(tables=[children])])  # the parents are not written by it


@pytest.mark.parametrize("actions", [{}, {"ondelete": "RESTRICT", "onupdate": "NO ACTION"}])
def test_a_foreign_key_that_changes_no_rows_is_valid(actions):
    check([projection(tables=family(**actions))])


def test_functions_that_execute_sql_themselves_may_use_a_cascade():
    made = Projection("families", version=1, tables=family(ondelete="CASCADE"))

    @made.on(Placed)
    async def placed(event, recorded, connection) -> None: ...

    check([made])
