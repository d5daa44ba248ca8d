"""
What a delivery means: a trigger for a run, a question, or a message to set aside.

The first stop of every message. Nothing here raises for what a sender did, and nothing here touches
the store: a message is only read, within the limits of the settings. With a codec, what was sent in
plain is sealed here, before it can get anywhere else.
"""

from collections.abc import Iterable, Sequence

from saga_engine.decider.triggers import Cancel, Garbled, Replied, Start, Trigger
from saga_engine.payload.encryption import PLAIN, Sealing, input_place, reply_place
from saga_engine.protocol.answer import address
from saga_engine.protocol.command import decode_command
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.reply import decode_reply, told_outcome
from saga_engine.protocol.request import CancelRequest, StartRequest, StatusRequest, decode_request
from saga_engine.protocol.token import read_any, shown
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, participant_queue
from saga_engine.protocol.unreadable import Unreadable
from saga_engine.settings import Settings
from saga_engine.worker.timeslice import Timeslice
from saga_engine.worker.work_item import Arrival, Intake, Letter, Question


async def read_apart(
    deliveries: Iterable[Delivery],
    keys: Sequence[bytes],
    settings: Settings,
    sealing: Sealing = PLAIN,
) -> Intake:
    """
    Read a batch of deliveries one at a time: between two, whatever else is ready has its turn.

    Args:
        keys: the engine's, with one of which each genuine correlation id was made.
    """
    intake, turn = Intake(), Timeslice()
    for delivery in deliveries:
        read_one(intake, delivery, keys, settings, sealing)
        await turn.over()
    return intake


def read_one(
    intake: Intake,
    delivery: Delivery,
    keys: Sequence[bytes],
    settings: Settings,
    sealing: Sealing = PLAIN,
) -> None:
    """Read one delivery into *intake*."""
    try:
        _read(intake, delivery, keys, settings, sealing)
    except Exception as error:  # noqa: BLE001 - decoding never raises, so this is a bug of ours
        text = f"The engine could not read it: {type(error).__name__}."
        intake.letters.append(Letter(delivery, "engine_fault", text))


def _read(
    intake: Intake, delivery: Delivery, keys: Sequence[bytes], settings: Settings, sealing: Sealing
) -> None:
    if delivery.queue == REPLIES:
        _reply(intake, delivery, keys, settings, sealing)
    elif delivery.queue == DEAD_LETTERS:
        intake.letters.append(_dead(delivery, keys, settings))
    else:
        _request(intake, delivery, settings, sealing)


def _reply(
    intake: Intake, delivery: Delivery, keys: Sequence[bytes], settings: Settings, sealing: Sealing
) -> None:
    reply = decode_reply(delivery, keys, settings)
    ref = reply.ref
    if isinstance(reply, Unreadable):
        run_id = str(ref.run_id) if ref else None
        letter = Letter(delivery, reply.reason, reply.sentence, run_id, signed=ref is not None)
        intake.letters.append(letter)
        if ref is None:
            return
        place = reply_place(str(ref.run_id), ref.step, ref.direction)
        trigger: Trigger = Garbled(
            *(ref.step, ref.direction, ref.attempt, reply.sentence),
            told_outcome(delivery),
            sealing.sealed(_beginning(delivery.body[: settings.incident_text_bytes]), place),
        )
    else:
        assert ref is not None  # only an unreadable reply can be nobody's
        run_id = str(ref.run_id)
        body = sealing.sealed(reply.body, reply_place(run_id, ref.step, ref.direction))
        failure = reply.failure and sealing.sealed_failure(reply.failure, run_id)
        trigger = Replied(ref.step, ref.direction, ref.attempt, reply.outcome, body, failure)
    intake.arrivals.append(_arrival(str(ref.run_id), trigger, delivery))


def _beginning(body: bytes) -> str:
    """Write bytes as text that can be stored: NUL, and what is not UTF-8, is escaped."""
    return body.decode(errors="backslashreplace").replace("\0", "\\x00")


def _request(intake: Intake, delivery: Delivery, settings: Settings, sealing: Sealing) -> None:
    request = decode_request(delivery, settings)
    match request:
        case Unreadable():
            letter = Letter(delivery, request.reason, request.sentence, None, address(delivery))
            intake.letters.append(letter)
        case StartRequest():
            run_id = str(request.run_id)
            given = sealing.sealed(request.input, input_place(request.saga, run_id))
            start = Start(run_id, request.key, given)
            arrival = _arrival(
                start.run_id, start, delivery, saga=request.saga, version=request.version
            )
            intake.arrivals.append(arrival)
        case CancelRequest():
            cancel = Cancel(request.by, request.reason)
            intake.arrivals.append(_arrival(str(request.run_id), cancel, delivery))
        case StatusRequest():
            answer_to = address(delivery)
            if answer_to is not None:  # a question that nobody waits for needs no answer
                intake.questions.append(Question(str(request.run_id), answer_to))


def _arrival(
    run_id: str,
    trigger: Trigger,
    delivery: Delivery,
    *,
    saga: str = "",
    version: int | None = None,
) -> Arrival:
    return Arrival(
        run_id,
        trigger,
        saga,
        version,
        delivery.message_id,
        shown(delivery.correlation_id),
        None if delivery.queue == REPLIES else address(delivery),
        None,
        delivery,
        delivery.user_id,
    )


def _dead(delivery: Delivery, keys: Sequence[bytes], settings: Settings) -> Letter:
    """A message the broker gave up; its `x-death` header says where and why."""
    deaths = delivery.headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    queue, reason = ("", "")
    if isinstance(first, dict):
        queue, reason = str(first.get("queue", "")), str(first.get("reason", ""))
    known = reason if reason in BROKER_REASONS else "other"
    text = f"The broker gave it up in queue {queue[:100]!r}."
    if queue.startswith(participant_queue("")):
        # A participant cannot say why it rejected something; mostly it is what we see as well.
        command = decode_command(delivery, settings)
        text += f" {command.sentence}" if isinstance(command, Unreadable) else ""
    signed = read_any(keys, delivery.correlation_id) is not None
    return Letter(delivery, f"broker_{known}", text, signed=signed)


BROKER_REASONS = ("rejected", "expired", "maxlen", "delivery_limit")
"""Why RabbitMQ dead-letters (guide "Dead Letter Exchanges")."""
