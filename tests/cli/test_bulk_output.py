"""What `resolve` prints for many incidents."""

import shlex

from saga_engine.telemetry.events import RunFinished
from tests.kit.stuck_runs import WHY, start_stuck_runs


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
    await engine.events.wait_for_next(RunFinished, 3)
    none = await engine("resolve", "--all", "skip", "--yes", *WHY)
    assert (none.exit_code, none.err) == (0, "No open incident matches.\n")


async def test_refused_resolutions_are_listed_and_exit_7(engine):
    await start_stuck_runs(engine, 2)
    ran = await engine("resolve", "--saga", "stuck", "reject", "--yes", *WHY)
    assert ran.exit_code == 7
    assert ran.out.count("the run can only go forward") == 2
    assert "2 refused" in ran.out


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
