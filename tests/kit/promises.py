"""
P1, P2, P3 and P5 of every run, from the store alone.

Counted from the journal's own rows and not with the helpers of `saga`, so that a mistake there
shows here.
"""

from collections.abc import Sequence

from sqlalchemy import text

from saga_engine.decider.evolve import replay
from saga_engine.store import incidents, run_queries
from saga_engine.store.event_data import deserialize_event
from saga_engine.vocabulary import Status
from tests.kit.held_runs import check_held_runs

_MAX_RUNS = 100_000


async def check_promises(database, *, settled=True, held=()):
    """
    Assert the promises of every run in the database; the runs, by id.

    Args:
        settled: whether nothing is in flight any more, so that P1 can be asserted.
        held: runs that workers hold in memory, as `EngineHarness.held_runs` returns them.
    """
    runs = {}
    async with database.transaction() as tx:
        # A run in flight and its journal must be read as of one moment.
        await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        waiting = {each.run_id for each in await incidents.read_page(tx, limit=_MAX_RUNS)}
        revisions = dict((await tx.execute(_REVISIONS)).all())
        for summary in await run_queries.list_runs(tx, limit=_MAX_RUNS):
            detail = await run_queries.read_detail(tx, summary.run_id)
            assert detail is None or not detail.damage
            runs[summary.run_id] = detail
            check_run(detail, summary, revisions[summary.run_id], waiting if settled else None)
        await check_held_runs(tx, held)
    return runs


_REVISIONS = text(
    "SELECT run_id::text, array_agg(revision ORDER BY revision) FROM saga_engine.journal"
    " GROUP BY run_id"
)


def check_run(detail, summary, revisions, open_incidents=None):
    """
    Assert the promises of one run.

    Args:
        summary: its columns, as `run_queries` reads them.
        detail: with `stored`, `journal` and `document`, as `reading.show` gives them.
        revisions: of the rows of its journal; a row may have no events.
        waiting: the runs with an open incident, once nothing is in flight any more: then P1 is
            asserted too.
    """
    if open_incidents is not None:
        _check_finished_or_incident(detail, open_incidents)
    _check_replay(detail, revisions)
    _check_columns(detail.stored_run, summary)
    _check_effects(detail)


def _check_finished_or_incident(detail, open_incidents):
    run = detail.stored_run.run
    assert run.status.is_finished or run.run_id in open_incidents, f"P1: {run}"
    assert (run.run_id in open_incidents) == bool(run.incidents), (
        f"P1: the table of incidents: {run}"
    )


def _check_replay(detail, revisions):
    run = detail.stored_run.run
    assert revisions == [*range(1, detail.stored_run.revision + 1)], f"P5: {revisions}"
    positions = [each.position for each in detail.journal]
    assert positions == sorted(set(positions)), f"P5: {positions}"
    replayed = replay(deserialize_event(each.type, each.data) for each in detail.journal)
    assert replayed == run, f"P5:\n{replayed}\n{run}"


def _check_columns(stored, summary):
    """P5: what runs are searched by, and how they ended, is as their journal says."""
    run, cause = stored.run, stored.run.compensation_cause
    columns = [summary.status, summary.key, summary.started_at, summary.finished_at]
    columns += [summary.deadline, summary.result, summary.failure, summary.open_incidents]
    expected = [run.status, run.key, run.started_at, run.finished_at]
    expected += [run.deadline, run.result, cause and cause.as_failure, len(run.incidents)]
    assert columns == expected, f"P5: the columns {columns} of {run}"
    assert not (run.status.is_finished and stored.wake_at), f"P5: a finished run wakes up: {run}"
    due = [
        progress.due_at
        for step in run.steps.values()
        for progress in (step.action, step.compensation)
        if progress.due_at is not None
    ]
    if due and not run.status.is_finished:
        assert stored.wake_at is not None, f"P5: no timer of {run}"


def _check_effects(detail):
    run = detail.stored_run.run
    if run.status is Status.COMPLETED:
        undone = {step["name"] for step in detail.document["steps"]} - set(
            _event_positions(detail, ("step_succeeded", "step_completed", "step_skipped"), "action")
        )
        assert not undone, f"P2: {undone} of {run}"
    if run.status is Status.COMPENSATED:
        _check_compensation_order(detail)


def _check_compensation_order(detail):
    confirmed = _event_positions(
        detail, ("step_succeeded", "step_completed", "step_skipped"), "compensation", last=True
    )
    ordered = _event_positions(detail, ("attempt_started",), "compensation")
    after = {step["name"]: step["after"] for step in detail.document["steps"]}
    for step, before in after.items():
        if _may_have_taken_effect(detail, step):
            assert step in confirmed, f"P3: {step} of {detail.stored_run.run}"
            for earlier in before:
                assert ordered.get(earlier, _MAX_RUNS) > confirmed[step], f"P3: {earlier}, {step}"


def _may_have_taken_effect(detail, step) -> bool:
    actions = [
        each
        for each in detail.journal
        if each.data.get("step") == step and each.data.get("direction") == "action"
    ]
    kinds = [each.type for each in actions]
    if "step_succeeded" in kinds or "step_completed" in kinds:
        return True
    sent = kinds.count("attempt_started")
    undelivered = sum(bool(each.data.get("never_delivered")) for each in actions)
    return sent > undelivered and kinds[-1] != "step_rejected"


def _event_positions(detail, types: Sequence[str], direction, *, last=False):
    """Where in the journal each step has its first (or last) event of these types."""
    found: dict[str, int] = {}
    for place, each in enumerate(detail.journal):
        if each.type in types and each.data.get("direction") == direction:
            step = each.data["step"]
            found[step] = place if last else found.get(step, place)
    return found
