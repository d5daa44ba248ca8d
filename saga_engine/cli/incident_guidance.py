"""One incident in detail: what an operator needs to know, and the commands that resolve it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saga_engine.cli.incidents import STATE_OPEN, format_resolution, incident_json
from saga_engine.cli.output import print_field, print_line
from saga_engine.cli.paging import command_line
from saga_engine.decider.run import Run
from saga_engine.payload.encryption import PayloadEncryption, reply_associated_data
from saga_engine.store.incidents import StoredIncident
from saga_engine.vocabulary import Direction, Resolution, StepKind

LABEL_WIDTH = 14
"""Columns of a terminal that the labels take."""


def incident_detail_json(
    incident: StoredIncident, run: Run, encryption: PayloadEncryption
) -> dict[str, Any]:
    """Return an incident with its kept reply, for users who may read payloads."""
    run_incident = run.incidents.get(incident.number)
    stored_reply = run_incident.kept_reply if run_incident else None
    reply = None
    if stored_reply is not None:
        associated_data = reply_associated_data(run.run_id, incident.step, incident.direction)
        reply = {
            "attempt": stored_reply.attempt,
            "outcome": stored_reply.outcome,
            "body": encryption.decrypt_if_possible(stored_reply.body, associated_data),
            "unreadable": stored_reply.unreadable,
        }
    return {**incident_json(incident), "reply": reply}


def print_incident(incident: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> None:
    """Print an incident: what happened, since when, and the commands that resolve it."""
    if incident["state"] != STATE_OPEN:
        resolution_text = format_resolution(
            incident["resolution"], incident["operator"], incident["reason"]
        )
        print_field(
            "incident",
            f"{incident['id']} ({resolution_text}): {incident['message']}",
            label_width=LABEL_WIDTH,
        )
        return
    print_field(
        "incident", f"{incident['id']} (open): {incident['message']}", label_width=LABEL_WIDTH
    )
    step = next((each for each in steps if each["name"] == incident["step"]), None)
    for name, value in _incident_fields(incident, step):
        print_field(f"  {name}", value, label_width=LABEL_WIDTH)
    for number, command in enumerate(resolve_commands(incident, step)):
        # Not wrapped, so that it can be copied.
        print_line(f"{'' if number else '  to resolve':{LABEL_WIDTH}} {command}")


def resolve_commands(incident: Mapping[str, Any], step: Mapping[str, Any] | None) -> Iterator[str]:
    """Return the commands that resolve an incident, ready to copy; the operator replaces WHY."""
    is_action = incident["direction"] == Direction.ACTION
    has_compensation = step is None or step["compensation"] is not None
    reason = ("--reason", "WHY")
    if is_action or has_compensation:
        yield command_line("resolve", incident["id"], Resolution.RETRY, *reason)
    result = ("--result", "JSON") if is_action else ()
    yield command_line("resolve", incident["id"], Resolution.COMPLETE, *result, *reason)
    if is_action and (step is None or step["kind"] != StepKind.RETRIABLE):
        yield command_line("resolve", incident["id"], Resolution.REJECT, *reason)
    for action in (Resolution.SKIP, Resolution.ABANDON):
        yield command_line("resolve", incident["id"], action, *reason)


def _incident_fields(
    incident: Mapping[str, Any], step: Mapping[str, Any] | None
) -> Iterator[tuple[str, object]]:
    yield "cause", incident["cause"]
    yield "since", incident["opened_at"]
    if step is not None:
        yield "step", f"{step['name']} ({incident['direction']}), {step['kind']}"
        progress = step if incident["direction"] == Direction.ACTION else step["compensation"]
        if progress:
            yield "command", f"{progress['command']}, sent {progress['attempts']} times"
        if progress and progress["error"]:
            yield "last failure", f"{progress['error']['code']}: {progress['error']['message']}"
    reply = incident.get("reply")
    if reply is not None:
        outcome = reply["outcome"] or "no outcome"
        yield "reply", f"to attempt {reply['attempt']}, {outcome}: {json.dumps(reply['body'])}"
