"""
P1 to P5 of every run of a simulation, from the journal's rows and the services' own ledger.

Nothing here asks the core what it thinks of a step, so that a mistake there shows here. P5 alone
needs its `replay`, whose result is compared with the run's row.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from saga_engine.decider.events import from_journal
from saga_engine.decider.evolve import replay
from saga_engine.decider.run import Run
from saga_engine.vocabulary import Direction, Status
from simulation.memory_database import Row, Tables
from simulation.workload import Play

ACTION, COMPENSATION = Direction.ACTION.value, Direction.COMPENSATION.value
DONE = ("step_succeeded", "step_completed", "step_skipped")


class Story:
    """What is on record of one run: its row, its journal, and what its participants did."""

    def __init__(
        self, row: Row, journal: Sequence[Row], effects: Sequence[Row], play: Play
    ) -> None:
        self.row = row
        self.play = play
        self.events = [(each["type"], orjson.loads(each["data"])) for each in journal]
        self.versions = [each["version"] for each in journal]
        self.effects: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, effect in enumerate(effects):
            self.effects[effect["step"], effect["direction"]].append(number)

    def done(self, step: str, direction: str) -> list[int]:
        """When that was done, by the services' own word."""
        return self.effects.get((step, direction), [])

    def said(self, step: str, direction: str, kinds: Sequence[str] = DONE) -> bool:
        """Whether the journal has such an event."""
        return any(
            kind in kinds and data.get("step") == step and data.get("direction") == direction
            for kind, data in self.events
        )

    def may_have_taken_effect(self, step: str) -> bool:
        """Whether the engine has to take the step for one that was done."""
        mine = [
            (kind, data)
            for kind, data in self.events
            if data.get("step") == step and data.get("direction") == ACTION
        ]
        kinds = [kind for kind, _ in mine]
        if "step_succeeded" in kinds or "step_completed" in kinds:
            return True
        nowhere = sum(bool(data.get("returned")) for _, data in mine)
        return kinds.count("attempt_started") > nowhere and kinds[-1] != "step_rejected"


def stories(engine: Tables, ledger: Sequence[Row], plays: Sequence[Play]) -> list[Story]:
    """What is on record of every run."""
    by_saga = {(play.saga.name, play.saga.version): play for play in plays}
    sagas = {row["id"]: (row["name"], row["version"]) for row in engine.rows["definition"].values()}
    journals: dict[str, list[Row]] = defaultdict(list)
    for (run_id, _), event in sorted(engine.rows["event"].items()):
        journals[run_id].append(event)
    effects: dict[str, list[Row]] = defaultdict(list)
    for effect in ledger:
        effects[effect["run_id"]].append(effect)
    return [
        Story(row, journals[run_id], effects[run_id], by_saga[sagas[row["definition_id"]]])
        for run_id, row in engine.rows["run"].items()
    ]


def broken(story: Story, run: Run, waiting: set[str]) -> Iterator[str]:
    """
    Say which promises a run breaks, in sentences that begin with them.

    Args:
        run: as the store reads its row.
        waiting: the runs with an open incident.
    """
    named = f"run {run.run_id} of {run.saga}"
    for sentence in (*_ends(story, waiting), *_replays(story, run), *_once(story)):
        yield f"{sentence} ({named})"
    if run.status is Status.COMPLETED:
        yield from (f"{sentence} ({named})" for sentence in _complete(story))
    if run.status is Status.COMPENSATED:
        yield from (f"{sentence} ({named})" for sentence in _undone(story))


def _ends(story: Story, waiting: set[str]) -> Iterator[str]:
    open_incidents = bool(orjson.loads(story.row["state"]).get("incidents"))
    waits = story.row["run_id"] in waiting
    if story.row["finished_at"] is None and not waits:
        yield f"P1: it is {story.row['status']} for ever"
    if waits != open_incidents:
        yield "P1: the table of incidents says something else than the run"


def _complete(story: Story) -> Iterator[str]:
    for step in story.play.saga.steps:
        if not story.said(step, ACTION):
            yield f"P2: step {step} did not succeed"
        if len(story.done(step, ACTION)) != 1:
            yield f"P2: step {step} was done {len(story.done(step, ACTION))} times"
        if story.done(step, COMPENSATION):
            yield f"P2: step {step} was undone"


def _undone(story: Story) -> Iterator[str]:
    saga = story.play.saga
    for step, declared in saga.steps.items():
        if declared.read_only:
            continue
        if story.may_have_taken_effect(step) and not story.said(step, COMPENSATION):
            yield f"P3: step {step} may have taken effect and has no confirmed compensation"
        if len(story.done(step, ACTION)) != len(story.done(step, COMPENSATION)):
            yield f"P3: the effect of step {step} is still there"
    for step, before in saga.after.items():
        for earlier in before:
            if _in_wrong_order(story, earlier, step):
                yield f"P3: step {earlier} was undone before step {step}"


def _in_wrong_order(story: Story, earlier: str, later: str) -> bool:
    if story.said(later, ACTION, ("step_rejected",)):
        return False  # Whoever forgets that it refused may do it after all, however late.
    undone, too_late = story.done(earlier, COMPENSATION), story.done(later, COMPENSATION)
    return bool(undone and too_late) and undone[0] < too_late[0]


def _once(story: Story) -> Iterator[str]:
    for (step, direction), times in story.effects.items():
        if len(times) != 1:
            yield f"P4: the {direction} of step {step} happened {len(times)} times"
        done = story.done(step, ACTION)
        if direction == COMPENSATION and (not done or done[0] > times[0]):
            yield f"P4: step {step} was undone and had not been done"
    for step in story.play.saga.steps:
        if story.said(step, ACTION, ("step_succeeded",)) and not story.done(step, ACTION):
            yield f"P4: step {step} is said to have succeeded and was not done"


def _replays(story: Story, run: Run) -> Iterator[str]:
    if story.versions != list(range(1, run.revision + 1)):
        yield f"P5: its journal has the versions {story.versions}"
        return
    events: list[Any] = [from_journal(kind, data) for kind, data in story.events]
    if replay(events) != run:
        yield "P5: its journal replays to something else than its row"
