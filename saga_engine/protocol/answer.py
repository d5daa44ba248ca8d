"""
The messages for clients: the answer to a request, the end of a run, and the question who listens.

All are published to the exchange `saga.events`, which routes only to queues that clients bound to
it. A forged reply_to therefore cannot make the engine write to a participant's queue. Delivery is
best effort: a client that missed a message asks for the status. The contract is docs/protocol.md.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from saga_engine.protocol.body import JsonObject, read_json_object, write_json
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.protocol.reply import read_failure
from saga_engine.protocol.request import read_run_id
from saga_engine.protocol.run_result import RunResult
from saga_engine.protocol.topology import EVENTS, Binding
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Failure, Json, Status

ANSWER_TYPE = "answer"
RUN_FINISHED_TYPE = "finished"
LISTENER_PROBE_TYPE = "probe"

MAX_PROBED_RUNS = 60
"""Routing keys of one probe: of 255 bytes each, they fit into the headers of a message."""

_RUN_FIELDS = ("status", "saga", "version", "key", "result", "open_incidents", "incident")
_VALID_REPLY_TO = re.compile(r"[A-Za-z0-9_.:-]{1,200}", re.ASCII)


class AnswerOutcome(StrEnum):
    """The engine's answer to a request."""

    ACCEPTED = "accepted"  # the run was started, the cancel was recorded
    # The run exists already: see `status` and `result`. A start without a version that no worker
    # has accepted yet has no status.
    EXISTING = "existing"
    CONFLICT = "conflict"  # the key or the id is taken by a run with another input
    UNKNOWN_RUN = "unknown_run"
    UNKNOWN_SAGA = "unknown_saga"
    INVALID = "invalid"  # the request or its input breaks a rule: `error` says which
    REFUSED = "refused"  # not possible in this state: `error` says why


@dataclass(frozen=True, slots=True)
class AnswerAddress:
    """Where the answer to a request goes."""

    reply_to: str
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    The answer to a request.

    Args:
        outcome: what the engine did with the request.
        run_id: the run that the answer is about, None if it is about none.
        run: that run, unless the answer does not describe it.
        refusal: why the request is refused, in an answer that describes no run.
    """

    outcome: AnswerOutcome
    run_id: UUID | None = None
    run: RunResult | None = None
    refusal: Failure | None = field(default=None, repr=False)


def answer_address(delivery: Delivery) -> AnswerAddress | None:
    """Where the answer to a request goes; None when the request names no valid queue for it."""
    if not delivery.correlation_id or not _VALID_REPLY_TO.fullmatch(delivery.reply_to):
        return None
    return AnswerAddress(delivery.reply_to, delivery.correlation_id)


def run_finished_binding(queue: str, run_id: UUID) -> Binding:
    """The binding that gives a client the message that one run is finished."""
    return Binding(queue, EVENTS, f"{RUN_FINISHED_TYPE}.{run_id}.#")


def encode_answer(destination: AnswerAddress, answer: Answer) -> Message:
    """Encode an answer; without a run, the fields that describe one are null."""
    run = answer.run
    error = run.error if run else answer.refusal
    return Message(
        exchange=EVENTS,
        routing_key=f"{ANSWER_TYPE}.{destination.reply_to}",
        body=write_json(
            {
                "outcome": answer.outcome.value,
                "run_id": str(answer.run_id) if answer.run_id else None,
                "status": run.status.value if run else None,
                "result": run.result if run else None,
                "error": failure_json(error) if error else None,
                "saga": run.saga if run else None,
                "version": run.version if run else None,
                "key": run.key if run else None,
                "open_incidents": run.open_incidents if run else 0,
                "incident": _incident_to_json(run.incident) if run and run.incident else None,
            }
        ),
        message_id=new_message_id(),
        type=ANSWER_TYPE,
        correlation_id=destination.correlation_id,
        mandatory=False,
    )


def encode_run_finished(run: RunResult) -> Message:
    """Encode the message that a run is finished; it has no incidents."""
    return Message(
        exchange=EVENTS,
        routing_key=_finished_key(run),
        body=write_json(
            {
                "run_id": str(run.run_id),
                "saga": run.saga,
                "version": run.version,
                "key": run.key,
                "status": run.status.value,
                "result": run.result,
                "error": failure_json(run.error) if run.error else None,
            }
        ),
        message_id=new_message_id(),
        type=RUN_FINISHED_TYPE,
        mandatory=False,
    )


def encode_listener_probes(runs: Sequence[RunResult]) -> list[Message]:
    """
    Encode messages that the broker returns if no queue is bound for the end of any of *runs*.

    Each asks for up to `MAX_PROBED_RUNS` runs. A queue that is bound receives it; it says nothing.
    """
    keys = [_finished_key(run) for run in runs]
    return [
        Message(
            exchange=EVENTS,
            routing_key=keys[start],
            other_routing_keys=tuple(keys[start + 1 : start + MAX_PROBED_RUNS]),
            body=b"{}",
            message_id=new_message_id(),
            type=LISTENER_PROBE_TYPE,
        )
        for start in range(0, len(keys), MAX_PROBED_RUNS)
    ]


def _finished_key(run: RunResult) -> str:
    return f"{RUN_FINISHED_TYPE}.{run.run_id}.{run.saga}"


def decode_client_message(
    delivery: Delivery, settings: Settings
) -> Answer | RunResult | UnreadableMessage:
    """Read what arrived in a client's queue: an answer, or the result of a finished run."""
    body = read_json_object(delivery, settings)
    if isinstance(body, UnreadableMessage):
        return body
    try:
        return _parse_run(body) if delivery.type == RUN_FINISHED_TYPE else _parse_answer(body)
    except (KeyError, ValueError):
        return UnreadableMessage(
            DeadLetterReason.BAD_REQUEST, "It is neither an answer nor a finished run."
        )


def _incident_to_json(incident: OpenIncident) -> JsonObject:
    return {
        "number": incident.number,
        "step": incident.step,
        "direction": incident.direction.value,
        "cause": incident.cause,
        "since": incident.since.isoformat(),
    }


def _parse_incident(value: Json) -> OpenIncident | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value["number"], int):
        raise ValueError("incident")  # noqa: TRY004 - one exception for every invalid field
    return OpenIncident(
        number=value["number"],
        step=_require_text(value["step"]),
        direction=Direction(_require_text(value["direction"])),
        cause=_require_text(value["cause"]),
        since=datetime.fromisoformat(_require_text(value["since"])),
    )


def _parse_answer(body: JsonObject) -> Answer:
    describes_run = any(body.get(name) not in (None, 0) for name in _RUN_FIELDS)
    return Answer(
        outcome=AnswerOutcome(_require_text(body["outcome"])),
        run_id=read_run_id(body),
        run=_parse_run(body) if describes_run else None,
        refusal=None if describes_run else _parse_failure(body.get("error")),
    )


def _parse_run(body: JsonObject) -> RunResult:
    run_id, version, open_incidents = read_run_id(body), body["version"], body.get("open_incidents")
    if run_id is None or not isinstance(version, int):
        raise ValueError("run_id or version")
    if not isinstance(open_incidents, int | None):
        raise ValueError("open_incidents")  # noqa: TRY004 - one exception for every invalid field
    return RunResult(
        run_id=run_id,
        saga=_require_text(body["saga"]),
        version=version,
        key=_optional_text(body.get("key")),
        status=Status(_require_text(body["status"])),
        result=body.get("result"),
        error=_parse_failure(body.get("error")),
        open_incidents=open_incidents or 0,
        incident=_parse_incident(body.get("incident")),
    )


def _parse_failure(value: Json) -> Failure | None:
    failure = None if value is None else read_failure(value)
    if isinstance(failure, UnreadableMessage):
        raise ValueError("error")  # noqa: TRY004 - one exception for every invalid field
    return failure


def _optional_text(value: Json) -> str | None:
    return None if value is None else _require_text(value)


def _require_text(value: Json) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - the same
    return value
