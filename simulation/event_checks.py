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
from simulation.effect_events import (
    ENGINE_LOG,
    LOG,
    effect_feed,
    effects,
    read_event,
    run_feed,
    stream_view,
    views,
)
from simulation.event_model import NEW_READER, events_of_run
from simulation.memory_database import MemoryDatabase
from simulation.process import SimulatedProcess
from simulation.rows import Row

FEED_QUEUE = "feed"
FEED_QUEUE_TOPOLOGY = Topology(
    FEED_TOPOLOGY.exchanges, (Queue(FEED_QUEUE),), (Binding(FEED_QUEUE, FEED, "#"),)
)
"""The queue of a consumer, which receives nothing while a world lasts."""

AT_THE_EXCHANGE = (PublishOutcome.CONFIRMED, PublishOutcome.UNROUTABLE)


class PublishedFeed:
    """What a feed has published, by position."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._last_positions: defaultdict[str, int] = defaultdict(int)
        self._violations: list[str] = []

    def add(self, stream: str, position: int, event_id: str) -> None:
        """Add a message that the exchange has received."""
        known_id, last = self._ids.get(position), self._last_positions[stream]
        if known_id is None and position < last:
            self._violations.append(f"E5: {stream} at {position} came after {last}")
        if known_id not in (None, event_id):
            self._violations.append(f"E5: position {position} has two ids")
        self._ids[position] = event_id
        self._last_positions[stream] = max(position, last)

    def violations(self, expected: set[int]) -> Iterator[str]:
        """E5: every event has reached the exchange, in order, and nothing else has."""
        yield from self._violations
        if self._ids.keys() != expected:
            yield f"E5: published and expected differ in {self._ids.keys() ^ expected}"
        if len(set(self._ids.values())) != len(self._ids):
            yield "E5: two events have one id"


class EventChecks:
    """Observes the messages of feeds, and finds violations; without projectors there are none."""

    def __init__(
        self,
        services_db: MemoryDatabase,
        engine_db: MemoryDatabase,
        broker: BrokerModel,
        projectors: int,
    ) -> None:
        self._db, self._engine_db = services_db, engine_db
        self._is_enabled = projectors > 0
        self._feeds = {log.id.urn: PublishedFeed() for log in (LOG, ENGINE_LOG)}
        broker.on_published.append(self._on_published)

    def readers_behind(self) -> list[str]:
        """The projections and feeds that have not reached the last position."""
        if not self._is_enabled:
            return []
        readers = (
            (self._db, "projection", views.name),
            (self._db, "feed", effect_feed.name),
            (self._engine_db, "feed", run_feed.name),
        )
        behind = [
            f"{table} {name}"
            for database, table, name in readers
            if database.rows[table].get(name, NEW_READER)["position"] < database.last_position
        ]
        return behind + [f"parked {stream}" for stream in self._db.rows["parked_stream"]]

    def violations(self) -> Iterator[str]:
        """Each broken promise as a sentence."""
        if not self._is_enabled:
            return
        streams = self._streams()
        for stream, rows in streams.items():
            yield from _check_stream(stream, rows)
        yield from self._check_effects()
        yield from self._check_projection(streams)
        events = self._db.rows["stream_event"].values()
        yield from self._feeds[LOG.id.urn].violations({row["position"] for row in events})
        journal = self._engine_db.rows["journal"].values()
        of_runs = {event["position"] for row in journal for event in events_of_run(row)}
        yield from self._feeds[ENGINE_LOG.id.urn].violations(of_runs)
        for reader in self.readers_behind():
            yield f"E6: {reader} does not reach the last position"

    def _on_published(
        self, process: SimulatedProcess, message: Message, outcome: PublishOutcome
    ) -> None:
        del process
        if message.exchange == FEED and outcome in AT_THE_EXCHANGE:
            header = {name: str(value) for name, value in message.headers.items()}
            self._feeds[header["ce-source"]].add(
                header["ce-subject"], int(header["ce-sequence"]), message.message_id
            )

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
        read: defaultdict[str, list[int]] = defaultdict(list)
        for (position,), row in self._db.rows[read_event.name].items():
            read[row["stream"]] += [position] * row["times"]
        for stream, rows in streams.items():  # a parked one is read later than others
            expected = [row["position"] for row in rows]
            if read[stream] != expected:
                yield f"E2: of {stream} was read {read[stream]}, there are {expected}"
        replayed = {
            (stream,): {"last_position": rows[-1]["position"], "events": len(rows)}
            for stream, rows in streams.items()
        }
        found = self._db.rows[stream_view.name]
        if found != replayed:
            wrong = {key: row for key, row in found.items() if replayed.get(key) != row}
            yield f"E4: {wrong} is not what a replay gives; {len(found)} of {len(replayed)} rows"


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
