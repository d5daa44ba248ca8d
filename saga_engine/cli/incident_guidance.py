"""What a person needs about one incident, and the commands that can resolve it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saga_engine.cli.incidents import OPEN, ended, incident_json
from saga_engine.cli.output import field, line
from saga_engine.cli.paging import command_line
from saga_engine.decider.run import Run
from saga_engine.payload.encryption import Sealing, reply_place
from saga_engine.store.incidents import StoredIncident
from saga_engine.vocabulary import Direction, Resolution, StepKind

PAD = 14
"""Cells of the names beside an incident's values."""


def shown_incident(incident: StoredIncident, run: Run, sealing: Sealing) -> dict[str, Any]:
    """Write an incident for those who may read runs: with the reply that is kept with it."""
    opened = run.incidents.get(incident.number)
    kept = opened.kept if opened else None
    reply = None
    if kept is not None:
        place = reply_place(run.run_id, incident.step, incident.direction)
        reply = {
            "attempt": kept.attempt,
            "outcome": kept.outcome,
            "body": sealing.readable(kept.body, place),
            "unreadable": kept.unreadable,
        }
    return {**incident_json(incident), "reply": reply}


def print_incident(incident: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> None:
    """Print an incident: what happened, since when, and what can be done."""
    if incident["state"] != OPEN:
        how = ended(incident["resolution"], incident["by"], incident["reason"])
        field("incident", f"{incident['id']} ({how}): {incident['message']}", pad=PAD)
        return
    field("incident", f"{incident['id']} (open): {incident['message']}", pad=PAD)
    step = next((each for each in steps if each["name"] == incident["step"]), None)
    for name, value in _lines(incident, step):
        field(f"  {name}", value, pad=PAD)
    for number, command in enumerate(commands(incident, step)):
        # Not folded, so that it can be copied.
        line(f"{'' if number else '  to resolve':{PAD}} {command}")


def commands(incident: Mapping[str, Any], step: Mapping[str, Any] | None) -> Iterator[str]:
    """The commands that can resolve an incident, ready to be copied; WHY is a person's to give."""
    acting = incident["direction"] == Direction.ACTION
    undoable = step is None or step["compensation"] is not None
    reason = ("--reason", "WHY")
    if acting or undoable:
        yield command_line("resolve", incident["id"], Resolution.RETRY, *reason)
    result = ("--result", "JSON") if acting else ()
    yield command_line("resolve", incident["id"], Resolution.COMPLETE, *result, *reason)
    if acting and (step is None or step["kind"] != StepKind.RETRIABLE):
        yield command_line("resolve", incident["id"], Resolution.REJECT, *reason)
    for action in (Resolution.SKIP, Resolution.ABANDON):
        yield command_line("resolve", incident["id"], action, *reason)


def _lines(
    incident: Mapping[str, Any], step: Mapping[str, Any] | None
) -> Iterator[tuple[str, object]]:
    yield "cause", incident["cause"]
    yield "since", incident["opened_at"]
    if step is not None:
        yield "step", f"{step['name']} ({incident['direction']}), {step['kind']}"
        place = step if incident["direction"] == Direction.ACTION else step["compensation"]
        if place:
            yield "command", f"{place['command']}, sent {place['attempts']} times"
        if place and place["error"]:
            yield "last failure", f"{place['error']['code']}: {place['error']['message']}"
    reply = incident.get("reply")
    if reply is not None:
        said = reply["outcome"] or "no outcome"
        yield "reply", f"to attempt {reply['attempt']}, {said}: {json.dumps(reply['body'])}"
