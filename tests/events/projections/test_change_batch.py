"""Folded changes give the rows that the same changes give one after the other."""

from decimal import Decimal
from random import Random
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Numeric, Table, Text

from saga_engine.errors import StoreRefused
from saga_engine.events.projections.change import Change, add, delete, insert, put, upsert
from saga_engine.events.projections.change_batch import ChangeBatch, Slot
from saga_engine.events.projections.change_writer import write_changes
from saga_engine.store.database import Database, SqlAlchemyTransaction

METADATA = MetaData(schema="read_model")
ORDERS = Table(
    "orders",
    METADATA,
    Column("customer", Text, primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("note", Text),
    Column("items", Integer, nullable=False, server_default="0"),
    Column("total", Numeric(12, 2)),
)
TABLES = [ORDERS]
STORED = insert(ORDERS, key={"customer": "a", "id": 1}, put={"status": "old", "total": 3})
"""The row that is there before the changes."""


def random_change(rng: Random) -> Change:
    key = {"customer": rng.choice("ab"), "id": rng.randint(1, 2)}
    words: dict[str, Any] = {"status": rng.choice("xyz")}
    if rng.random() < 0.5:
        words["note"] = rng.choice(["n", None])
    numbers = {
        name: value
        for name, value in {
            "items": rng.randint(-2, 2),
            "total": Decimal(rng.randint(-500, 500)).scaleb(-2),
        }.items()
        if rng.random() < 0.6
    }
    return rng.choice(
        [
            lambda: insert(ORDERS, key=key, put=words | numbers),
            lambda: upsert(ORDERS, key=key, put=words, add=numbers),
            lambda: upsert(ORDERS, key=key, put=words | numbers),
            lambda: put(ORDERS, key=key, values=words | numbers),
            lambda: add(ORDERS, key=key, values=numbers),
            lambda: put(ORDERS, key=key, values={"total": None}),
            lambda: delete(ORDERS, key=key),
            lambda: delete(ORDERS, key=key),
        ]
    )()


def folded(changes: list[Change]) -> list[ChangeBatch]:
    batches = [ChangeBatch()]
    for change in changes:
        if not batches[-1].fold(change):
            batches.append(ChangeBatch())
            assert batches[-1].fold(change)
    return batches


def one_by_one(changes: list[Change]) -> list[ChangeBatch]:
    return [batch for change in changes for batch in folded([change])]


async def outcome(database: Database, batches: list[ChangeBatch]) -> Any:
    """The rows that the batches leave, or None when PostgreSQL refuses one."""
    try:
        async with database.transaction() as tx:
            for batch in batches:
                await write_changes(tx, batch, TABLES)
            rows = await read(tx)
            await tx.connection.exec_driver_sql("TRUNCATE read_model.orders")
            await write_changes(tx, folded([STORED])[0], TABLES)
            return rows
    except StoreRefused:
        return None


async def read(tx: SqlAlchemyTransaction) -> list[tuple[Any, ...]]:
    query = ORDERS.select().order_by(ORDERS.c.customer, ORDERS.c.id)
    return [tuple(map(str, row)) for row in await tx.connection.execute(query)]


@pytest.fixture
async def orders(database: Database) -> Database:
    async with database.transaction() as tx:
        await tx.connection.exec_driver_sql("CREATE SCHEMA read_model")
        await tx.connection.run_sync(METADATA.create_all)
        await write_changes(tx, folded([STORED])[0], TABLES)
    return database


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(each, marks=pytest.mark.long) for each in range(2, 5))]
)
async def test_folding_gives_the_rows_of_the_changes_one_by_one(orders, seed):
    rng = Random(seed)
    succeeded = 0
    for _ in range(60):
        changes = [random_change(rng) for _ in range(rng.randint(2, 9))]
        expected = await outcome(orders, one_by_one(changes))
        assert await outcome(orders, folded(changes)) == expected, changes
        succeeded += expected is not None
    assert succeeded > 20


def key_of(order: int) -> dict[str, Any]:
    return {"customer": "a", "id": order}


def slots(*changes: Change) -> list[set[Slot]]:
    key = changes[0].key
    return [
        {slot for slot in Slot if key in batch.rows(ORDERS, slot)} for batch in folded([*changes])
    ]


def test_a_row_has_one_change_of_each_slot():
    new = insert(ORDERS, key=key_of(1), put={"status": "new"})
    paid = put(ORDERS, key=key_of(1), values={"status": "paid"})
    more = add(ORDERS, key=key_of(1), values={"items": 1})
    stored = upsert(ORDERS, key=key_of(1), put={"status": "new"})
    gone = delete(ORDERS, key=key_of(1))
    assert slots(new, paid, more) == [{Slot.INSERT}]
    assert slots(stored, more, stored) == [{Slot.UPSERT}]
    assert slots(paid, more, gone) == [{Slot.DELETE}]
    assert slots(gone, more) == [{Slot.DELETE}]
    assert slots(gone, stored, more) == [{Slot.DELETE, Slot.UPSERT}]
    assert slots(paid, stored) == [{Slot.UPDATE, Slot.UPSERT}]
    assert slots(new, gone, paid) == [{Slot.INSERT, Slot.DELETE_INSERTED}]
    assert slots(new, gone, stored) == [{Slot.INSERT, Slot.DELETE_INSERTED}, {Slot.UPSERT}]
    assert slots(stored, new) == [{Slot.UPSERT}, {Slot.INSERT}]


def test_sums_are_exact():
    sums = Table(
        "sums", MetaData(), Column("id", Integer, primary_key=True), Column("total", Numeric)
    )
    big, small = Decimal(10**40), Decimal("0.01")
    total = [add(sums, key={"id": 1}, values={"total": each}) for each in (big, small, -big)]
    (batch,) = folded(total)
    (change,) = batch.rows(sums, Slot.UPDATE).values()
    assert change.add == {"total": small}


async def test_tables_that_refer_to_each_other_are_written_in_their_order(database):
    metadata = MetaData()
    parents = Table("parents", metadata, Column("id", Integer, primary_key=True))
    children = Table(
        "children",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("parent", ForeignKey(parents.c.id), nullable=False),
    )
    made, removed = ChangeBatch(), ChangeBatch()
    for n in range(3):
        assert made.fold(upsert(children, key={"id": n}, put={"parent": n}))
        assert made.fold(upsert(parents, key={"id": n}))
        assert removed.fold(delete(parents, key={"id": n}))
        assert removed.fold(delete(children, key={"id": n}))
    async with database.transaction() as tx:
        await tx.connection.run_sync(metadata.create_all)
        await write_changes(tx, made, [parents, children])
        assert len((await tx.connection.execute(children.select())).all()) == 3
        await write_changes(tx, removed, [parents, children])
        assert (await tx.connection.execute(parents.select())).all() == []
