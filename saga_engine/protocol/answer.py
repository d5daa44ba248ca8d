"""
What the engine tells clients: the answer to a request, and that a run is finished.

Rule: both go to the exchange `saga.events`, which reaches only queues that clients bound to it: a
forged reply_to can so never make the engine write into the queue of a participant. Both are best
effort; who missed them asks for the status. The contract is docs/protocol.md.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from saga_engine.decider.run import OpenIncident
from saga_engine.protocol.body import Object, read_object, write_json
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.failure import failure_json
from saga_engine.protocol.message import Delivery, Message
from saga_engine.protocol.reply import read_failure
from saga_engine.protocol.request import read_run_id
from saga_engine.protocol.topology import EVENTS, Binding
from saga_engine.protocol.unreadable import Reason, Unreadable
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Failure, Json, Status

ANSWER = "answer"
FINISHED = "finished"

_REPLY_TO = re.compile(r"[A-Za-z0-9_.:-]{1,200}", re.ASCII)


class AnswerOutcome(StrEnum):
    """What became of a request."""

    ACCEPTED = "accepted"  # the run was started, the cancel was recorded
    # The run is there already: `status` and `result` say how it stands. A start that named no
    # version and has not begun has no status yet.
    EXISTING = "existing"
    CONFLICT = "conflict"  # the key or the id is taken by a run with another input
    UNKNOWN_RUN = "unknown_run"
    UNKNOWN_SAGA = "unknown_saga"
    INVALID = "invalid"  # the request or its input breaks a rule: `error` says which
    REFUSED = "refused"  # not possible in this state: `error` says why


@dataclass(frozen=True, slots=True)
class Address:
    """Where the answer to a request goes."""

    reply_to: str
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The answer to a request; `run_id` is the run it speaks of, if any, like what follows it.

    `open_incidents` is in how many places the run waits for a person, `incident` the first of them.
    """

    outcome: AnswerOutcome
    run_id: UUID | None = None
    status: Status | None = None
    result: Json = field(default=None, repr=False)
    error: Failure | None = field(default=None, repr=False)
    saga: str | None = None
    version: int | None = None
    key: str | None = None
    open_incidents: int = 0
    incident: OpenIncident | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run is finished."""

    run_id: UUID
    saga: str
    version: int
    key: str | None
    status: Status
    result: Json = field(default=None, repr=False)
    error: Failure | None = field(default=None, repr=False)


def address(delivery: Delivery) -> Address | None:
    """Where the answer to this request goes; None when the sender wants none, or cannot have it."""
    if not delivery.correlation_id or not _REPLY_TO.fullmatch(delivery.reply_to):
        return None
    return Address(delivery.reply_to, delivery.correlation_id)


def finished_binding(queue: str, run_id: UUID) -> Binding:
    """What a client binds to hear of the end of one run."""
    return Binding(queue, EVENTS, f"{FINISHED}.{run_id}.#")


def encode_answer(to: Address, answer: Answer) -> Message:
    """Write an answer."""
    return Message(
        exchange=EVENTS,
        routing_key=f"{ANSWER}.{to.reply_to}",
        body=write_json(
            {
                "outcome": answer.outcome.value,
                "run_id": str(answer.run_id) if answer.run_id else None,
                "status": answer.status.value if answer.status else None,
                "result": answer.result,
                "error": failure_json(answer.error) if answer.error else None,
                "saga": answer.saga,
                "version": answer.version,
                "key": answer.key,
                "open_incidents": answer.open_incidents,
                "incident": _incident_json(answer.incident) if answer.incident else None,
            }
        ),
        message_id=fresh_message_id(),
        type=ANSWER,
        correlation_id=to.correlation_id,
        mandatory=False,
    )


def encode_finished(finished: Finished) -> Message:
    """Write the announcement that a run is finished."""
    return Message(
        exchange=EVENTS,
        routing_key=f"{FINISHED}.{finished.run_id}.{finished.saga}",
        body=write_json(
            {
                "run_id": str(finished.run_id),
                "saga": finished.saga,
                "version": finished.version,
                "key": finished.key,
                "status": finished.status.value,
                "result": finished.result,
                "error": failure_json(finished.error) if finished.error else None,
            }
        ),
        message_id=fresh_message_id(),
        type=FINISHED,
        mandatory=False,
    )


def decode_event(delivery: Delivery, settings: Settings) -> Answer | Finished | Unreadable:
    """Read what arrived in a client's queue."""
    body = read_object(delivery, settings)
    if isinstance(body, Unreadable):
        return body
    try:
        return _finished(body) if delivery.type == FINISHED else _answer(body)
    except (KeyError, ValueError):
        return Unreadable(Reason.BAD_REQUEST, "It is neither an answer nor a finished run.")


def _incident_json(incident: OpenIncident) -> Object:
    return {
        "number": incident.number,
        "step": incident.step,
        "direction": incident.direction.value,
        "cause": incident.cause,
        "since": incident.since.isoformat(),
    }


def _incident(value: Json) -> OpenIncident | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value["number"], int):
        raise ValueError("incident")  # noqa: TRY004 - one exception for all that does not fit
    return OpenIncident(
        value["number"],
        _text(value["step"]),
        Direction(_text(value["direction"])),
        _text(value["cause"]),
        datetime.fromisoformat(_text(value["since"])),
    )


def _answer(body: Object) -> Answer:
    version, waits = body.get("version"), body.get("open_incidents", 0)
    if version is not None and not isinstance(version, int):
        raise ValueError("version")
    if not isinstance(waits, int):
        raise ValueError("open_incidents")  # noqa: TRY004 - the same
    return Answer(
        outcome=AnswerOutcome(_text(body["outcome"])),
        run_id=read_run_id(body),
        status=None if body.get("status") is None else Status(_text(body["status"])),
        result=body.get("result"),
        error=_error(body.get("error")),
        saga=_text_or_none(body.get("saga")),
        version=version,
        key=_text_or_none(body.get("key")),
        open_incidents=waits,
        incident=_incident(body.get("incident")),
    )


def _finished(body: Object) -> Finished:
    run_id, version = read_run_id(body), body["version"]
    if run_id is None or not isinstance(version, int):
        raise ValueError("run_id or version")
    return Finished(
        run_id=run_id,
        saga=_text(body["saga"]),
        version=version,
        key=_text_or_none(body.get("key")),
        status=Status(_text(body["status"])),
        result=body.get("result"),
        error=_error(body.get("error")),
    )


def _error(value: Json) -> Failure | None:
    failure = None if value is None else read_failure(value)
    if isinstance(failure, Unreadable):
        raise ValueError("error")  # noqa: TRY004 - one exception for whatever does not fit
    return failure


def _text_or_none(value: Json) -> str | None:
    return None if value is None else _text(value)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - the same
    return value
