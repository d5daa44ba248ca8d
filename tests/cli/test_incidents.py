"""`saga-engine incidents`: pages, totals, groups, and resolutions."""

import shlex

from saga_engine.decider.events import IncidentResolved
from saga_engine.store import incidents
from saga_engine.store.database import Database
from tests.kit.stuck_runs import start_stuck_runs


async def test_a_page_prints_its_total_and_the_next_command(engine):
    await start_stuck_runs(engine, 3)
    first = await engine("incidents", "--limit", 2, "--saga", "stuck")
    assert len(first.out.splitlines()) == 3
    assert "2 of 3 incidents. Next page: saga-engine incidents" in first.err
    command = shlex.split(first.err.partition("Next page: saga-engine ")[2])
    rest = await engine(*command)
    names = [each.split("\t")[0] for each in (first.out + rest.out).splitlines()]
    assert len(set(names) - {"incident"}) == 3
    assert rest.err == "1 of 3 incidents.\n"


async def test_a_document_has_the_total_and_the_next_page(engine):
    ids = await start_stuck_runs(engine, 3)
    first = (await engine("incidents", "--limit", 2, "--json")).json
    assert (first["total"], first["total_exact"], len(first["incidents"])) == (3, True, 2)
    assert first["next"] == first["incidents"][-1]["id"]
    rest = (await engine("incidents", "--after", first["next"], "--json")).json
    assert rest["next"] is None
    assert sorted(each["run_id"] for each in first["incidents"] + rest["incidents"]) == sorted(ids)
    some = (await engine("incidents", "--json", max_listing_total="2")).json
    assert (some["total"], some["total_exact"]) == (2, False)
    listed = await engine("incidents", max_listing_total="2")
    assert "3 of more than 2 incidents." in listed.err


async def test_an_incident_closed_by_the_engine_is_shown_with_the_reason(engine):
    [run_id] = await start_stuck_runs(engine)
    closed = IncidentResolved(1, None, "saga-engine", "a late reply arrived")
    async with (
        Database(engine.settings.require_database_url(), engine.settings) as database,
        database.transaction() as tx,
    ):
        await incidents.record(tx, [(run_id, closed)])
    how = "closed by saga-engine: a late reply arrived"
    shown = await engine("show", run_id)
    assert f"{run_id}/1 ({how}):" in shown.out
    listed = await engine("incidents", "--all")
    assert listed.out.splitlines()[1].endswith(how)
    again = await engine("resolve", f"{run_id}/1", "retry", "--operator", "ann", "--reason", "x")
    assert (again.exit_code, f"is resolved already: {how}." in again.err) == (4, True)
    for ran in (shown, listed, again):
        assert "None" not in ran.out + ran.err
    [document] = (await engine("incidents", "--all", "--json")).json["incidents"]
    assert (document["state"], document["operator"]) == ("closed", "saga-engine")


async def test_incidents_are_counted_by_group(engine):
    await start_stuck_runs(engine, 3)
    document = (
        await engine("incidents", "--group-by", "cause", "--group-by", "step", "--json")
    ).json
    [group] = document["groups"]
    assert {name: group[name] for name in ("cause", "step", "count")} == {
        "cause": "unroutable",
        "step": "lose",
        "count": 3,
    }
    command = shlex.split(group["resolve"])[1:]
    previewed = await engine(*command, "--operator", "ann")
    assert (previewed.exit_code, "3" in previewed.out) == (0, True)
    printed = await engine("incidents", "--group-by", "saga")
    assert printed.out.splitlines()[1].split("\t")[:2] == ["stuck", "3"]
    assert printed.err == "1 groups of 3 incidents.\n"


async def test_incidents_are_filtered_by_cause_step_and_age(engine):
    await start_stuck_runs(engine)
    for chosen, number in (
        (("--cause", "unroutable"), 1),
        (("--cause", "mapping_failed"), 0),
        (("--step", "lose", "--saga", "stuck"), 1),
        (("--step", "begin"), 0),
        (("--older-than", "1h"), 0),
        (("--older-than", "0s"), 1),
    ):
        found = (await engine("incidents", *chosen, "--json")).json
        assert (len(found["incidents"]), found["total"]) == (number, number), chosen
    wrong = await engine("incidents", "--older-than", "soon")
    assert (wrong.exit_code, "as in 90s, 10m or 2h" in wrong.err) == (2, True)
    missing = await engine("incidents", "--after", "0198c0de-0000-7000-8000-000000000001/1")
    assert (missing.exit_code, "Omit --after" in missing.err) == (3, True)


async def test_one_incident_is_shown_with_details_and_ready_commands(engine):
    [run_id] = await start_stuck_runs(engine)
    shown = (await engine("show", f"{run_id}/1")).out
    for words in (
        "unroutable",
        "lose (action), retriable",
        "greeter.lost, sent 1 times",
        "No queue is bound",
        f"saga-engine resolve {run_id}/1 retry --reason WHY",
        f"saga-engine resolve {run_id}/1 complete --result JSON --reason WHY",
    ):
        assert words in shown, words
    assert " reject " not in shown  # after its pivot a run only goes forward
    document = (await engine("show", f"{run_id}/1", "--json")).json
    assert (document["incident"]["cause"], document["incident"]["reply"]) == ("unroutable", None)
    missing = await engine("show", f"{run_id}/9")
    assert (missing.exit_code, "There is no incident" in missing.err) == (3, True)
