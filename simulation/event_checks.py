"""
The promises E1 to E6 of docs/reliability.md, checked at the end, and what the feed has published.

E2 and E4 are read from the tables of the projection, E3 from the effects of the services.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

import orjson

from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import FEED, FEED_TOPOLOGY, Binding, Queue, Topology
from simulation.broker_model import BrokerModel
from simulation.effect_events import effects, feed, read_event, stream_view, views
from simulation.memory_database import MemoryDatabase
from simulation.process import SimulatedProcess
from simulation.rows import Row

FEED_QUEUE = "feed"
FEED_QUEUE_TOPOLOGY = Topology(
    FEED_TOPOLOGY.exchanges, (Queue(FEED_QUEUE),), (Binding(FEED_QUEUE, FEED, "#"),)
)
"""The queue of a consumer, which receives nothing while a world lasts."""

READERS = (("projection", views.name), ("feed", feed.name))
AT_THE_EXCHANGE = (PublishOutcome.CONFIRMED, PublishOutcome.UNROUTABLE)


class EventChecks:
    """Observes the feed's messages, and finds violations; without projectors there are none."""

    def __init__(self, services_db: MemoryDatabase, broker: BrokerModel, projectors: int) -> None:
        self._db = services_db
        self._is_enabled = projectors > 0
        self._published: dict[int, str] = {}  # the first id of each position
        self._last_positions: defaultdict[str, int] = defaultdict(int)
        self._feed_violations: list[str] = []
        broker.on_published.append(self._on_published)

    def readers_behind(self) -> list[str]:
        """The projections and feeds that have not reached the last position."""
        if not self._is_enabled:
            return []
        last = self._db.last_position
        return [
            name
            for table, name in READERS
            if self._db.rows[table].get(name, {"position": -1})["position"] < last
        ]

    def violations(self) -> Iterator[str]:
        """Each broken promise as a sentence."""
        if not self._is_enabled:
            return
        streams = self._streams()
        for stream, rows in streams.items():
            yield from _check_stream(stream, rows)
        yield from self._check_effects()
        yield from self._check_projection(streams)
        yield from self._check_feed()
        for name in self.readers_behind():
            yield f"E6: {name} does not reach position {self._db.last_position}"

    def _on_published(
        self, process: SimulatedProcess, message: Message, outcome: PublishOutcome
    ) -> None:
        del process
        if message.exchange != FEED or outcome not in AT_THE_EXCHANGE:
            return
        position, stream = int(str(message.headers["ce-sequence"])), message.headers["ce-subject"]
        known_id, last = self._published.get(position), self._last_positions[str(stream)]
        if known_id is None and position < last:
            self._feed_violations.append(f"E5: {stream} at {position} came after {last}")
        if known_id not in (None, message.message_id):
            self._feed_violations.append(f"E5: position {position} has two ids")
        self._published[position] = message.message_id
        self._last_positions[str(stream)] = max(position, last)

    def _streams(self) -> dict[str, list[Row]]:
        streams: defaultdict[str, list[Row]] = defaultdict(list)
        for _, row in sorted(self._db.rows["stream_event"].items()):
            streams[row["stream"]].append(row)
        return streams

    def _check_effects(self) -> Iterator[str]:
        """E3: each effect behind a barrier has one event, and each event its effect."""
        recorded = Counter(
            (row["stream"], data["step"], data["direction"])
            for row in self._db.rows["stream_event"].values()
            for data in [orjson.loads(row["data"])]
        )
        done = Counter(
            (effects.stream(row["run_id"]), row["step"], row["direction"])
            for row in self._db.rows["effect"].values()
            if row["has_event"]
        )
        if recorded != done:
            yield f"E3: events without effect {recorded - done}, without event {done - recorded}"

    def _check_projection(self, streams: dict[str, list[Row]]) -> Iterator[str]:
        """E2, E4: what was read, and the rows that a replay gives."""
        expected = sorted(row["position"] for rows in streams.values() for row in rows)
        read = [position for (position,) in self._db.rows[read_event.name]]
        if read != expected:
            yield f"E2: read {read}, there are {expected}"
        replayed = {
            (stream,): {"last_position": rows[-1]["position"], "events": len(rows)}
            for stream, rows in streams.items()
        }
        found = self._db.rows[stream_view.name]
        if found != replayed:
            wrong = {key: row for key, row in found.items() if replayed.get(key) != row}
            yield f"E4: {wrong} is not what a replay gives; {len(found)} of {len(replayed)} rows"

    def _check_feed(self) -> Iterator[str]:
        """E5: every event has reached the exchange, and nothing else has."""
        yield from self._feed_violations
        expected = {row["position"] for row in self._db.rows["stream_event"].values()}
        if self._published.keys() != expected:
            yield f"E5: not published {expected - self._published.keys()}"
        if len(set(self._published.values())) != len(self._published):
            yield "E5: two events have one id"


def _check_stream(stream: str, rows: list[Row]) -> Iterator[str]:
    """E1: versions, positions, and the version that each command was decided for."""
    versions = [row["version"] for row in rows]
    if versions != list(range(1, len(rows) + 1)):
        yield f"E1: {stream} has the versions {versions}"
    positions = [row["position"] for row in rows]
    if positions != sorted(set(positions)):
        yield f"E1: {stream} has the positions {positions}"
    decided_for = [orjson.loads(row["data"])["number"] for row in rows]
    if decided_for != versions:
        yield f"E1: {stream} was decided for {decided_for}"
