"""`saga-engine resolve` for many incidents at once."""

import shlex

import pytest

from saga_engine.cli import bulk_resolve
from saga_engine.cli.bulk_resolve import (
    BulkResolver,
    RateLimiter,
    ResolutionRequest,
    parse_rate,
    select_incidents,
)
from saga_engine.client import Client
from saga_engine.errors import ConfigurationError
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.store.database import Database
from saga_engine.store.incidents import IncidentFilter
from saga_engine.telemetry.events import IncidentOpened, OperatorActionProcessed, RunFinished
from saga_engine.vocabulary import Resolution
from tests.kit.command_line import saga_engine

WHY = ("--reason", "the gateway is back", "--operator", "ann")
SKIP = ResolutionRequest(Resolution.SKIP, "ann", "the gateway is back")


async def start_stuck_runs(engine, number=1):
    """Start runs that open an incident; return their ids, the oldest incident first."""
    ids = []
    async with Client(settings=engine.settings) as client:
        for _ in range(number):
            handle = await client.start("stuck", {"name": "Ann"})
            ids.append(str(handle.run_id))
            await engine.events.wait_for(IncidentOpened)
    return ids


async def test_one_command_resolves_all_incidents_with_a_cause_after_a_preview(engine):
    ids = await start_stuck_runs(engine, 3)
    seen = await engine("resolve", "--cause", "unroutable", "skip", "--dry-run", "--json", *WHY)
    assert seen.json["incidents"] == 3
    assert seen.json["groups"] == [
        {"cause": "unroutable", "step": "lose", "saga": "stuck", "count": 3}
    ]
    asked = await engine("resolve", "--cause", "unroutable", "skip", *WHY)
    assert (asked.exit_code, "Skip 3 incidents? Add --yes" in asked.err) == (2, True)
    done = await engine("resolve", "--cause", "unroutable", "skip", "--yes", "--json", *WHY)
    assert (done.exit_code, done.json["accepted"], done.json["refused"]) == (0, 3, 0)
    assert sorted(each["run_id"] for each in done.json["outcomes"]) == sorted(ids)
    await engine.events.wait_for(RunFinished, 3)
    none = await engine("resolve", "--all", "skip", "--yes", *WHY)
    assert (none.exit_code, none.err) == (0, "No open incident matches.\n")


async def test_refused_resolutions_are_listed_and_exit_7(engine):
    await start_stuck_runs(engine, 2)
    ran = await engine("resolve", "--saga", "stuck", "reject", "--yes", *WHY)
    assert ran.exit_code == 7
    assert ran.out.count("the run can only go forward") == 2
    assert "2 refused" in ran.out


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


async def test_a_limited_resolve_prints_the_total_and_the_next_command(engine):
    await start_stuck_runs(engine, 3)
    asked = ("resolve", "--step", "lose", "--limit", 2, "skip", *WHY)
    seen = await engine(*asked, "--dry-run")
    assert seen.err == "2 of 3 incidents. Nothing was changed.\n"
    seen = (await engine(*asked, "--dry-run", "--json")).json
    assert (seen["incidents"], seen["total"], seen["total_exact"]) == (2, 3, True)
    done = await engine(*asked, "--yes")
    assert done.exit_code == 0
    command = done.err.splitlines()[-1].partition(" (--limit). For the next ones: saga-engine ")
    assert command[0] == "These are the oldest 2 of 3 incidents"
    rest = await engine(*shlex.split(command[2]), "--json")
    assert (rest.exit_code, rest.json["accepted"], rest.json["total"], rest.err) == (
        *(0, 1, 1),
        "1 of saga stuck, step lose: unroutable\n",
    )


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
    await engine.events.wait_for(OperatorActionProcessed, 5)


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
