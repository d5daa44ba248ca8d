"""The id, the data and the origin of an event of a row are made when they are first read."""

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from saga_engine.errors import UnreadableEvent
from saga_engine.events import Append, Events
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.recorded import Recorded
from tests.kit.event_database import connected, placed

LOG = EventLog(UUID(int=1))
AT = datetime(2026, 11, 30, tzinfo=UTC)
EVENT = Recorded(
    stream="order-1",
    version=2,
    position=7,
    type="order-placed",
    schema_version=1,
    recorded_at=AT,
    id=LOG.event_id("order-1", 2, 0, AT),
    data={"total": 3},
    actor="ada",
)


def of_row(data: str = '{"total": 3}') -> Recorded:
    return LOG.recorded(("order-1", 2, 0, 7, AT, "order-placed", 1, data, '{"actor": "ada"}', 1))


def test_an_event_of_a_row_is_like_any_other():
    assert of_row() == EVENT
    assert repr(of_row()) == repr(EVENT)
    assert asdict(of_row()) == asdict(EVENT)
    assert replace(of_row(), version=3) == replace(EVENT, version=3)
    assert copy.deepcopy(of_row()) == copy.copy(of_row()) == EVENT
    assert pickle.loads(pickle.dumps(of_row())) == EVENT
    with pytest.raises(FrozenInstanceError):
        of_row().actor = "bob"  # type: ignore[misc]  # what must fail


def test_each_field_of_an_event_of_a_row_has_a_value():
    for each in fields(Recorded):
        assert getattr(of_row(), each.name) == getattr(EVENT, each.name)


@pytest.mark.parametrize("event", [EVENT, of_row()])
def test_a_field_that_does_not_exist_is_an_error(event: Recorded):
    with pytest.raises(AttributeError, match="'Recorded' object has no attribute 'total'"):
        _ = event.total  # type: ignore[attr-defined]  # what must fail


def test_data_is_read_once():
    event = of_row()
    assert event.data is event.data


INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('order-1', $1, 'order-placed', 1, $2, $3)"""


@pytest.mark.parametrize("data", ["[" * 2000 + "]" * 2000, "1e400"])
async def test_an_event_that_cannot_be_read_stops_only_who_needs_its_data(
    events: Events, event_url: str, data: str
):
    async with connected(event_url) as other:
        await other.execute(INSERT, 1, data, "{}")
    await events.append(Append("order-1", [placed()]))
    first, second = [event async for event in events.read_all()]
    assert second.data == placed().data
    with pytest.raises(UnreadableEvent, match=r"Event 1 of order-1, 'order-placed': its data"):
        _ = first.data
    assert "order-1" in repr(first)
