"""The order in which a feed publishes, and what it saves, for every answer of the broker."""

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import pytest

from saga_engine.events import Recorded
from saga_engine.events.feeds.feed import Unroutable
from saga_engine.events.feeds.feed_batch import FeedBatch
from saga_engine.protocol.message import PublishOutcome

CONFIRMED, UNROUTABLE = PublishOutcome.CONFIRMED, PublishOutcome.UNROUTABLE
NACKED, UNKNOWN = PublishOutcome.NACKED, PublishOutcome.UNKNOWN
UNPUBLISHABLE = PublishOutcome.UNPUBLISHABLE


def recorded(position, stream):
    return Recorded(
        stream=f"order-{stream}",
        version=position,
        position=position,
        type="order-placed",
        schema_version=1,
        recorded_at=datetime(2026, 11, 30, tzinfo=UTC),
        id=UUID(int=position),
        data={},
    )


@dataclass(frozen=True)
class Taking:
    """How a sink wants its events."""

    unroutable: Unroutable = Unroutable.SKIP
    one_at_a_time: bool = True


def batch_of(streams, unroutable=Unroutable.SKIP, *, one_at_a_time=True):
    """Events with positions 1, 2, ... of these streams, up to position 100."""
    events = [recorded(position, stream) for position, stream in enumerate(streams, 1)]
    return FeedBatch(events, 0, 100, Taking(unroutable, one_at_a_time))


def next_positions(batch):
    return [each.position for each in batch.next_events()]


def record(batch, *outcomes):
    batch.record(zip(batch.next_events(), outcomes, strict=True))


def test_of_each_stream_one_event_at_a_time_is_published():
    batch = batch_of("aabab")
    assert next_positions(batch) == [1, 3]
    record(batch, CONFIRMED, CONFIRMED)
    assert next_positions(batch) == [2, 5]
    record(batch, CONFIRMED, CONFIRMED)
    assert next_positions(batch) == [4]
    assert batch.position == 3
    record(batch, CONFIRMED)
    assert (next_positions(batch), batch.position, batch.take_skipped()) == ([], 100, 0)
    assert (batch.take_published(), batch.take_published()) == (5, 0)


@pytest.mark.parametrize("outcome", [NACKED, UNKNOWN])
def test_an_event_that_was_not_confirmed_is_published_again_before_the_next_of_its_stream(outcome):
    batch = batch_of("aab")
    record(batch, outcome, CONFIRMED)
    assert (next_positions(batch), batch.position) == ([1], 0)
    record(batch, CONFIRMED)
    assert (next_positions(batch), batch.position) == ([2], 1)


def test_events_that_no_queue_is_bound_for_are_skipped_and_counted():
    batch = batch_of("ab")
    record(batch, CONFIRMED, UNROUTABLE)
    assert (batch.position, batch.take_skipped(), batch.failed) == (100, 1, None)


def test_a_skipped_event_is_counted_when_the_position_has_passed_it():
    """Otherwise it would be counted again after a crash."""
    batch = batch_of("ab")
    record(batch, NACKED, UNROUTABLE)
    assert (batch.position, batch.take_skipped()) == (0, 0)
    record(batch, CONFIRMED)
    assert (batch.position, batch.take_skipped()) == (100, 1)


@pytest.mark.parametrize(
    ("outcome", "unroutable"),
    [
        (UNROUTABLE, Unroutable.STOP),
        (UNPUBLISHABLE, Unroutable.STOP),
        (UNPUBLISHABLE, Unroutable.SKIP),
    ],
)
def test_a_feed_stops_before_an_event_that_cannot_be_published(outcome, unroutable):
    batch = batch_of("aabac", unroutable)
    record(batch, CONFIRMED, outcome, CONFIRMED)
    assert batch.failed is not None
    assert batch.failed[0].position == 3
    assert next_positions(batch) == [2]
    record(batch, CONFIRMED)
    assert (next_positions(batch), batch.position) == ([], 2)


def test_of_two_events_that_cannot_be_published_the_earlier_one_stops_the_feed():
    batch = batch_of("abab", Unroutable.STOP)
    record(batch, CONFIRMED, UNROUTABLE)
    assert next_positions(batch) == []
    batch = batch_of("abba", Unroutable.STOP)
    record(batch, UNROUTABLE, UNROUTABLE)
    assert batch.failed is not None
    assert (batch.failed[0].position, batch.position) == (1, 0)


def test_a_page_without_events_moves_the_position():
    batch = batch_of("")
    assert (next_positions(batch), batch.position) == ([], 100)


@pytest.mark.parametrize("seed", range(50))
def test_first_deliveries_are_in_order_and_no_position_is_saved_too_early(seed):
    """A broker that confirms, refuses, loses or returns at random."""
    rng = Random(seed)
    streams = rng.choices("abcdefg", k=60)
    batch = batch_of(streams, rng.choice(list(Unroutable)))
    delivered: dict[str, list[int]] = {}
    final: set[int] = set()
    while events := batch.next_events():
        outcomes = rng.choices(
            [CONFIRMED, NACKED, UNKNOWN, UNROUTABLE], weights=[60, 20, 20, 2], k=len(events)
        )
        for event, outcome in zip(events, outcomes, strict=True):
            arrived = outcome is CONFIRMED or (outcome is UNKNOWN and rng.random() < 0.5)
            seen = delivered.setdefault(event.stream, [])
            if arrived and event.position not in seen:
                assert seen == [] or seen[-1] < event.position
                seen.append(event.position)
            if outcome in (CONFIRMED, UNROUTABLE):
                final.add(event.position)
        batch.record(zip(events, outcomes, strict=True))
        assert all(each in final for each in range(1, min(batch.position, 60) + 1))
    assert batch.position == (100 if batch.failed is None else batch.failed[0].position - 1)


def test_a_sink_that_keeps_the_order_gets_all_that_is_not_done():
    batch = batch_of("aabab", one_at_a_time=False)
    assert next_positions(batch) == [1, 2, 3, 4, 5]
    record(batch, CONFIRMED, UNKNOWN, CONFIRMED, NACKED, UNKNOWN)
    assert (next_positions(batch), batch.position) == ([2, 4, 5], 1)
    record(batch, CONFIRMED, CONFIRMED, CONFIRMED)
    assert (next_positions(batch), batch.position) == ([], 100)


def test_an_event_after_one_that_is_published_again_is_published_again_too():
    """A sink that breaks its promise causes repetitions, and no gap in the order of a stream."""
    batch = batch_of("aab", one_at_a_time=False)
    record(batch, UNKNOWN, CONFIRMED, CONFIRMED)
    assert next_positions(batch) == [1, 2]
