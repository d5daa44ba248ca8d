"""`saga-engine resolve` for many incidents at once."""

import pytest

from saga_engine.cli import bulk_resolve
from saga_engine.cli.bulk_resolve import (
    BulkResolver,
    RateLimiter,
    ResolutionRequest,
    parse_rate,
    select_incidents,
)
from saga_engine.errors import ConfigurationError
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.store.database import Database
from saga_engine.store.incidents import IncidentFilter
from saga_engine.telemetry.events import OperatorActionProcessed
from saga_engine.vocabulary import Resolution
from tests.kit.command_line import saga_engine
from tests.kit.stuck_runs import WHY, start_stuck_runs

SKIP = ResolutionRequest(Resolution.SKIP, "ann", "the gateway is back")


async def test_only_matching_incidents_are_resolved(engine):
    first, second = await start_stuck_runs(engine, 2)
    for other in (
        *(("--cause", "step_failed"), ("--step", "begin"), ("--saga", "greet")),
        ("--older-than", "1h"),
    ):
        none = await engine("resolve", *other, "skip", "--yes", *WHY)
        assert (none.exit_code, none.err) == (0, "No open incident matches.\n"), other
    ran = await engine("resolve", "--step", "lose", "--limit", 1, "skip", "--yes", "--json", *WHY)
    assert [each["run_id"] for each in ran.json["outcomes"]] == [first]
    left = (await engine("incidents", "--json")).json["incidents"]
    assert [each["run_id"] for each in left] == [second]


async def test_an_invalid_selection_is_one_sentence(migrated_url):
    for typed, words in (
        (("skip",), "Name one incident, or select many"),
        (("o-1", "skip", "--all"), "Name one incident, or select many"),
        (("a", "b", "skip"), "To resolve many"),
        (("--all", "skip", "--rate", "fast"), "5/s, 30/m or 100/h"),
        (("--all", "skip", "--limit", 0), "--limit is 1 to 100000"),
        (("--cause", "gone", "skip"), "unroutable"),
        ((), "needs an ACTION"),
    ):
        ran = await saga_engine("resolve", *typed, *WHY, database_url=migrated_url)
        assert (ran.exit_code, words in ran.err) == (2, True), ran


class Clock:
    """A clock that only `sleep` advances."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


async def test_a_rate_is_kept(engine):
    await start_stuck_runs(engine, 3)
    clock = Clock()
    async with Database(engine.settings.require_database_url(), engine.settings) as database:
        found = (await select_incidents(database, IncidentFilter(), 10, 10)).incidents
        decided = await BulkResolver(database, SKIP, NO_ENCRYPTION, 60).resolve(
            found, RateLimiter(parse_rate("30/m"), clock, clock.sleep)
        )
    assert [each.result for each in decided] == ["accepted"] * 3
    assert clock.slept == [2.0, 2.0]


async def test_a_batch_is_recorded_only_after_the_previous_one_was_decided(engine, monkeypatch):
    monkeypatch.setattr(bulk_resolve, "BATCH_SIZE", 2)
    monkeypatch.setattr(bulk_resolve, "PAGE_SIZE", 2)
    await start_stuck_runs(engine, 5)
    seen = []
    async with Database(engine.settings.require_database_url(), engine.settings) as database:
        found = (await select_incidents(database, IncidentFilter(), 10, 10)).incidents
        assert len(found) == 5
        decided = await BulkResolver(database, SKIP, NO_ENCRYPTION, 60).resolve(
            found, RateLimiter(), lambda done, of: seen.append((done, of))
        )
    assert [each.result for each in decided] == ["accepted"] * 5
    assert seen == [(2, 5), (4, 5), (5, 5)]
    await engine.events.wait_for_next(OperatorActionProcessed, 5)


async def test_without_a_worker_only_one_batch_is_recorded(engine, monkeypatch):
    monkeypatch.setattr(bulk_resolve, "BATCH_SIZE", 1)
    await start_stuck_runs(engine, 2)
    async with Database(engine.settings.require_database_url(), engine.settings) as database:
        found = (await select_incidents(database, IncidentFilter(), 10, 10)).incidents
        decided = await BulkResolver(database, SKIP, NO_ENCRYPTION, 0).resolve(found, RateLimiter())
    assert [each.result for each in decided] == ["undecided", "not_recorded"]


@pytest.mark.parametrize(("typed", "rate"), [("5/s", 5), ("5", 5), ("30/m", 0.5), ("36/h", 0.01)])
def test_a_rate_is_parsed(typed, rate):
    assert parse_rate(typed) == pytest.approx(rate)


@pytest.mark.parametrize("typed", ["", "0", "-1/s", "nan", "inf/s", "5/d", "x"])
def test_an_invalid_rate_is_refused(typed):
    with pytest.raises(ConfigurationError):
        parse_rate(typed)
