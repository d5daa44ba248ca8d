import asyncio
import importlib
import re
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from saga_engine.loading import load_objects
from saga_engine.participant import Participant, barrier
from saga_engine.settings import Settings
from saga_engine.vocabulary import Outcome
from tests.kit.participant_service import engine_stub
from tests.kit.payments_participant import bookings_engine, make_command, make_refund

PAGE = Path(__file__).parents[2] / "docs" / "participants.md"


@pytest.fixture
async def engine(database_url):
    async with bookings_engine(database_url) as engine:
        yield engine


@pytest.fixture
def module(tmp_path, monkeypatch, database_url):
    """The module that the page's blocks make."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "documented_shop.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_DATABASE_URL", database_url)
    yield importlib.import_module("documented_shop")
    del sys.modules["documented_shop"]


async def test_the_pages_module_does_what_the_page_says(module, engine, broker_url, monkeypatch):
    monkeypatch.setenv("SAGA_ENGINE_BROKER_URL", broker_url)
    async with engine.begin() as tx:
        await tx.run_sync(module.charges.create)
    stop = asyncio.Event()
    async with engine_stub(broker_url) as sender, asyncio.TaskGroup() as group:
        serving = group.create_task(module.serve(stop))
        charge = make_command(payload={"order_id": "o-1", "cents": 990})
        await sender.send_when_bound(charge)
        assert (await sender.take_reply()).body == {"charge_id": "c-o-1"}
        for asked in (charge, charge):
            await sender.send(asked)
            assert (await sender.take_reply()).body == {"charge_id": "c-o-1"}
        await sender.send(make_command(payload={"order_id": "o-2", "cents": 100_001}))
        assert (await sender.take_reply()).failure.code == "limit"
        await sender.send(make_refund(charge))
        assert (await sender.take_reply()).outcome is Outcome.SUCCEEDED
        note = make_command(name="notice.send", payload={"to": "a@example.org"})
        for _ in range(2):
            await sender.send(note)
            assert (await sender.take_reply()).outcome is Outcome.SUCCEEDED
        assert module.mails == {note.idempotency_key: "a@example.org"}
        stop.set()
        await serving
    assert await module.delete_old_barrier_rows(engine) == 0


def test_the_pages_participants_are_found_by_the_command_line(module):
    names = [each.name for each in load_objects("documented_shop", Participant, 60.0)]
    assert names == ["payments", "audited-payments", "stock", "notices"]
    assert "saga_barrier" in module.metadata.tables


async def test_the_table_in_the_users_migrations_is_the_one_that_would_be_created(module, engine):
    async with engine.begin() as tx:
        await tx.run_sync(module.metadata.create_all)
    theirs = await shape(engine)
    async with engine.begin() as tx:
        await tx.execute(text("DROP TABLE saga_barrier"))
    await barrier.create_table(engine)
    assert await shape(engine) == theirs


def test_every_setting_the_page_names_exists():
    named = set(re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE.read_text()))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


async def shape(engine):
    def look(sync):
        found = inspect(sync)
        columns = [(c["name"], str(c["type"])) for c in found.get_columns("saga_barrier")]
        return columns, found.get_pk_constraint("saga_barrier")["constrained_columns"]

    async with engine.connect() as connection:
        return await connection.run_sync(look)
