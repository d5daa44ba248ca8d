"""The module of docs/events.md does what the page describes."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine import Rejected
from saga_engine.events import Append, EventData, Events, WrongVersion
from saga_engine.events.aggregate_rules import problems
from saga_engine.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


@pytest.fixture
def module(tmp_path, monkeypatch, event_url):
    """The module that the page's blocks make."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "documented_orders.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_DATABASE_URL", event_url)
    yield importlib.import_module("documented_orders")
    del sys.modules["documented_orders"]


async def stream(events: Events) -> list[Any]:
    return [event async for event in events.read("order-o-1")]


async def test_the_pages_module_does_what_the_page_says(
    module, events: Events, user_engine: AsyncEngine
):
    assert list(problems([module.orders])) == []
    with pytest.raises(Rejected):
        await module.place_order("o-1", "mara", [])
    placed = module.Order(status="placed", customer="mara", total=42)
    for _ in range(2):
        assert await module.place_order("o-1", "mara", [40, 2]) == placed
    [event] = await stream(events)
    assert (event.type, event.schema_version) == ("order-placed", 2)
    async with user_engine.begin() as connection:
        await module.confirm_order(module.ConfirmOrder(order_id="o-1"), connection)
        with pytest.raises(Rejected):
            await module.confirm_order(module.ConfirmOrder(order_id="o-2"), connection)
    assert [event.type for event in await stream(events)] == ["order-placed", "order-confirmed"]


async def test_the_pages_streams_are_appended_and_read(
    module, events: Events, user_engine: AsyncEngine
):
    await module.place_order("o-1", "mara", [40, 2])
    assert await module.total_of_placed() == (42, await events.position())
    part = module.Placed(customer="mara", total=21, currency="EUR")
    async with user_engine.begin() as connection:
        await module.split_order(connection, "o-1", [part, part])
        with pytest.raises(WrongVersion, match="'order-o-1-1' is at version 1"):
            await module.split_order(connection, "o-1", [part])
    position = await events.position()
    assert await module.total_of_placed(after=1) == (42, position)
    assert [event.type for event in await stream(events)] == ["order-placed", "order-confirmed"]


async def test_the_pages_older_version_is_read(module, events: Events):
    old = EventData("order-placed", 1, {"customer": "mara", "total": 42})
    await events.append(Append("order-o-1", [old]))
    done = await events.handle(module.orders, "o-1", module.Confirm())
    assert done.state == module.Order(status="confirmed", customer="mara", total=42)


def test_the_pages_functions_are_called_directly(module):
    placed = module.place(module.Order(), module.PlaceOrder(customer="mara", prices=[1, 2]))
    assert placed == module.Placed(customer="mara", total=3, currency="EUR")


def test_every_setting_the_page_names_exists():
    named = re.findall(r"\[`(\w+)`\]\(reference\.md\)", PAGE.read_text())
    assert named
    assert set(named) <= set(Settings.model_fields)
