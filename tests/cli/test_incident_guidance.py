"""What an incident shows to users who may read payloads, and to those who may not."""

import dataclasses
from datetime import UTC, datetime

from saga_engine.cli.incident_guidance import incident_detail_json, print_incident, resolve_commands
from saga_engine.cli.incidents import incident_json
from saga_engine.decider.run import Incident, KeptReply, Run
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.store.incidents import StoredIncident
from saga_engine.vocabulary import Direction, IncidentCause, Outcome

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
RUN_ID = "0198c0de-0000-7000-8000-000000000001"
KEPT = KeptReply(2, {"card": "4111111111111111"}, Outcome.SUCCEEDED)
STORED = StoredIncident(
    run_id=RUN_ID,
    saga="shop",
    version=1,
    key="o-1",
    number=1,
    step="charge",
    direction=Direction.ACTION,
    cause=IncidentCause.REPLY_INVALID,
    message="The reply does not fit Receipt.",
    opened_at=NOON,
    resolved_at=None,
    resolution=None,
    operator=None,
    reason=None,
)
RUN = Run(
    run_id=RUN_ID,
    saga="shop",
    version=1,
    fingerprint="f",
    key="o-1",
    input={},
    started_at=NOON,
    deadline=None,
    incidents={
        1: Incident(
            number=1,
            step="charge",
            direction=Direction.ACTION,
            cause=IncidentCause.REPLY_INVALID,
            message="",
            opened_at=NOON,
            kept_reply=KEPT,
        )
    },
)
STEP = {
    "name": "charge",
    "kind": "pivot",
    "command": "payment.charge",
    "attempts": 2,
    "error": {"code": "timeout", "message": "No reply within 30 s."},
    "compensation": None,
}


def test_the_kept_reply_is_shown_with_the_run_and_not_in_a_listing(capsys):
    print_incident(incident_detail_json(STORED, RUN, NO_ENCRYPTION), [STEP])
    shown = capsys.readouterr().out
    assert 'to attempt 2, succeeded: {"card": "4111111111111111"}' in shown
    assert "timeout: No reply within 30 s." in shown
    assert "4111" not in str(incident_json(STORED))
    assert "4111" not in repr(RUN.incidents)


def test_only_possible_commands_are_offered():
    def offered(step, direction="action"):
        incident = {"id": f"{RUN_ID}/1", "direction": direction}
        return [each.split()[3] for each in resolve_commands(incident, step)]

    assert offered(STEP) == ["retry", "complete", "reject", "skip", "abandon"]
    assert offered({**STEP, "kind": "retriable"}) == ["retry", "complete", "skip", "abandon"]
    assert offered(STEP, "compensation") == ["complete", "skip", "abandon"]
    compensatable = {**STEP, "compensation": STEP}
    assert offered(compensatable, "compensation") == ["retry", "complete", "skip", "abandon"]


def test_a_listed_incident_contains_no_payload():
    assert {each.name for each in dataclasses.fields(StoredIncident)}.isdisjoint(
        {"input", "state", "reply", "kept", "payload"}
    )
