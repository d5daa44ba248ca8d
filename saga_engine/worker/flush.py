"""
Everything a ledger holds, written to the store: one set-based statement for each kind of thing.

Nothing is decided here. Runs, which are locked already, come before everything that only this
transaction can touch, so that no two transactions wait for each other here.
"""

from dataclasses import replace
from datetime import timedelta

from saga_engine.decider.triggers import Cancel, Resolve, Start, trigger_data
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.token import shown
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    dead_letters,
    incidents,
    journal,
    outbox,
    pending_requests,
    runs,
)
from saga_engine.store.audit import Verdict
from saga_engine.store.database import Transaction
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.journal import Entry
from saga_engine.store.outbox import Outgoing
from saga_engine.store.pending_requests import Item
from saga_engine.worker.change_set import Ledger, Recorded
from saga_engine.worker.work_item import Arrival, Letter

BUSY_PAUSE = timedelta(seconds=1)
"""How long what somebody else holds up is left alone before it is tried again."""


async def write(tx: Transaction, ledger: Ledger, settings: Settings) -> None:
    """Write it all; afterwards `ledger.outcome.commands` are the rows of the outbox to publish."""
    outcome = ledger.outcome
    await runs.save(tx, [ledger.stored[run_id] for run_id in ledger.changed])
    await journal.append(tx, [_entry(each, ledger) for each in outcome.recorded])
    await incidents.record(tx, [(each.after.run_id, each.event) for each in outcome.recorded])
    numbers = await outbox.add(tx, ledger.sends)
    outcome.commands = [
        Outgoing(number, send, ledger.now)
        for number, send in zip(numbers, ledger.sends, strict=True)
    ]
    letters = [_dead_letter(letter) for letter in outcome.letters]
    await dead_letters.record(tx, letters, settings.dead_letter_bytes, settings.dead_letter_quota)
    waiting = [_item(arrival, ledger, timedelta()) for arrival in outcome.parked]
    waiting += [_held(arrival, ledger) for arrival in outcome.held]
    waiting += [_item(arrival, ledger, BUSY_PAUSE) for arrival in outcome.put_by]
    await pending_requests.record(tx, waiting)
    verdicts = [Verdict(each.audit_id, each.accepted, each.message) for each in ledger.verdicts]
    await audit.settle(tx, verdicts)


def _entry(recorded: Recorded, ledger: Ledger) -> Entry:
    arrival = recorded.arrival
    metadata = {}
    if arrival is not None and arrival.message_id:
        metadata["causation_id"] = arrival.message_id
    if arrival is not None and arrival.correlation_id:
        metadata["correlation_id"] = arrival.correlation_id
    if arrival is not None and isinstance(arrival.trigger, Cancel | Resolve):
        metadata |= _verified(arrival)
    return Entry(recorded.after.run_id, recorded.version, recorded.event, ledger.now, metadata)


def _verified(arrival: Arrival) -> dict[str, str]:
    """Who asked, as RabbitMQ or PostgreSQL knows it: what the request itself says may be untrue."""
    said = {"sender": arrival.sender, "role": arrival.role}
    return {name: value for name, value in said.items() if value}


def _item(arrival: Arrival, ledger: Ledger, delay: timedelta) -> Item:
    kind, body = trigger_data(arrival.trigger)
    stored = ledger.stored.get(arrival.run_id)
    return Item(
        kind,
        arrival.run_id,
        body,
        saga=arrival.saga or None,
        version=arrival.version,
        definition_id=stored.definition_id if stored else None,
        audit_id=arrival.audit_id,
        reply_to=arrival.answer_to.reply_to if arrival.answer_to else None,
        correlation_id=arrival.answer_to.correlation_id if arrival.answer_to else None,
        sender=arrival.sender,
        key=arrival.trigger.key if isinstance(arrival.trigger, Start) else None,
        role=arrival.role,
        delay=delay,
        fingerprint=arrival.fingerprint,
    )


def _held(arrival: Arrival, ledger: Ledger) -> Item:
    """A start until its turn; anything else until the start of its run has had its turn."""
    item = _item(arrival, ledger, timedelta())
    return replace(item, held=item.kind != "start")


def _dead_letter(letter: Letter) -> DeadLetter:
    delivery, correlation_id = letter.delivery, letter.delivery.correlation_id
    return DeadLetter(
        delivery.queue,
        letter.reason,
        letter.sentence,
        delivery.body,
        delivery.size,
        run_id=letter.run_id,
        message_id=delivery.message_id,
        # One that is not verified may be the token of a key that this worker has yet to read. It is
        # kept as it came, so that it can be sent again; a verified one is signed anew then.
        correlation_id=shown(correlation_id) if letter.signed else correlation_id,
        type=delivery.type,
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        properties=_properties(delivery),
        headers=delivery.headers,
        signed=letter.signed,
        sender=f"role:{letter.role}" if letter.role is not None else "",
        owed=letter.owed,
    )


def _properties(delivery: Delivery) -> dict[str, str]:
    properties = {
        "reply_to": delivery.reply_to,
        "content_type": delivery.content_type,
        "content_encoding": delivery.content_encoding,
        "user_id": delivery.user_id,
        "app_id": delivery.app_id,
    }
    if delivery.timestamp is not None:
        properties["timestamp"] = delivery.timestamp.isoformat()
    return {name: value for name, value in properties.items() if value}
