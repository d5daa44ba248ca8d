"""The documents of a run and of a listing."""

from saga_engine.telemetry.events import RunFinished


async def test_runs_are_listed_in_pages_the_newest_first(engine):
    ids = [await engine.start_run("greet", name, "--key", name) for name in ("a", "b", "c")]
    await engine.events.wait_for_next(RunFinished, 3)
    listed = (await engine("list", "--json")).json
    assert [run["run_id"] for run in listed["runs"]] == ids[::-1]
    assert listed["next"] is None
    assert {run["status"] for run in listed["runs"]} == {"completed"}
    page = (await engine("list", "--limit", 2, "--json")).json
    rest = (await engine("list", "--limit", 2, "--after", page["next"], "--json")).json
    assert [run["key"] for run in page["runs"] + rest["runs"]] == ["c", "b", "a"]
    assert (page["total"], rest["total"], rest["next"]) == (3, 3, None)
    summary = (await engine("list", "--limit", 2, "--saga", "greet")).err
    assert summary == (
        f"2 of 3 runs. Next page: saga-engine list --saga greet --limit 2 --after {page['next']}\n"
    )


async def test_a_run_is_shown_with_its_steps_and_its_journal(engine):
    run_id = await engine.start_run("greet", "unknown")
    await engine.events.wait_for_next(RunFinished)
    shown = (await engine("show", run_id, "--json")).json
    assert shown["status"] == "compensated"
    assert shown["cause"]["code"] == "rejected"
    (step,) = shown["steps"]
    assert {name: step[name] for name in ("name", "kind", "status", "attempts")} == {
        "name": "say",
        "kind": "compensatable",
        "status": "rejected",
        "attempts": 1,
    }
    assert step["error"]["code"] == "unknown_name"
    assert (step["compensation"]["command"], step["compensation"]["status"]) == (
        "greeter.apologise",
        "pending",
    )
    assert [entry["revision"] for entry in shown["journal"]] == [1, 1, 2, 2, 2]
    assert shown["revision"] == 2
    positions = [entry["position"] for entry in shown["journal"]]
    assert positions == sorted(set(positions))
    assert [shown["journal"][index]["type"] for index in (0, -1)] == [
        "run_started",
        "run_compensated",
    ]
    assert all(entry["at"].endswith("Z") and "data" in entry for entry in shown["journal"])
