"""The event whose messages docs/protocol.md shows."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from saga_engine.events import Recorded
from saga_engine.events.event_store.event_log import EventLog

LOG = EventLog(UUID("0198c0de-0000-7000-8000-000000000001"))
AT = datetime(2026, 11, 30, 12, 0, 0, 1, tzinfo=UTC)
PLACED = Recorded(
    stream="order-o-1",
    version=1,
    position=4711,
    type="order-placed",
    schema_version=2,
    recorded_at=AT,
    id=LOG.event_id("order-o-1", 1, 0, AT),
    data={"customer": "mara", "total": "12.50"},
    correlation_id="request-7",
)
DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
