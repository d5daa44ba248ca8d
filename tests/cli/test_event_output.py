from datetime import UTC, datetime
from uuid import UUID

import orjson

from saga_engine.cli.event_output import data_text, event_json
from saga_engine.events.event_store.recorded import Recorded

ID = UUID("0198c0de-0000-7000-8000-000000000001")
EVENT = Recorded(
    stream="order-1",
    version=1,
    position=12,
    type="order-placed",
    schema_version=2,
    recorded_at=datetime(2026, 1, 2, tzinfo=UTC),
    id=ID,
    data={"number": 1},
    correlation_id="c-1",
    causation_id="m-1",
    actor="mara",
)


def test_a_document_has_every_field_of_an_event():
    document = event_json(EVENT)
    data = document.pop("data")
    assert orjson.dumps(data) == b'{"number":1}'
    assert document == {name: getattr(EVENT, name) for name in Recorded.__slots__ if name != "data"}


def test_data_is_json_on_one_line():
    assert data_text(EVENT) == '{"number":1}'
