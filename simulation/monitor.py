"""
What happened in a simulation, as the models tell it, and P6: nothing is said too soon.

A witness stands beside the databases and the broker. It knows nothing of the engine but its tables
and its wire, and holds every publish and every acknowledgement against what is committed by then.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

import orjson

from saga_engine.protocol.answer import ANSWER, FINISHED, AnswerOutcome
from saga_engine.protocol.command import ATTEMPT, DIRECTION, RUN_ID, STEP
from saga_engine.protocol.message import Delivery, Message, Published
from saga_engine.protocol.reply import OUTCOME
from saga_engine.protocol.topology import COMMANDS, DEAD_LETTERS, EVENTS, REPLIES, REQUESTS
from saga_engine.vocabulary import Direction, Outcome
from simulation.broker_model import Broker
from simulation.client import KNOWN
from simulation.memory_database import Row, Tables, Transaction
from simulation.partition_model import month_of
from simulation.process import Process

_SAID = {
    Outcome.SUCCEEDED.value: (Outcome.SUCCEEDED.value,),
    Outcome.REJECTED.value: (Outcome.REJECTED.value, "compensated"),
}
"""What the barrier's row must have said before a reply says that."""


class Witness:
    """
    Watches one simulation; `guarded` are the commands that are performed behind the barrier.

    `ledger` are the effects in the order of their commits, `violations` sentences that begin with
    the promise they break, `accepted` the runs whose clients were told so, with the version that
    was named, `digest` stands for everything that happened.
    """

    def __init__(
        self, engine: Tables, services: Tables, broker: Broker, guarded: Collection[str]
    ) -> None:
        self.violations: list[str] = []
        self.ledger: list[Row] = []
        self.counts: Counter[str] = Counter()
        self.accepted: dict[str, int | None] = {}
        self._engine = engine
        self._services = services
        self._guarded = guarded
        self._hash = hashlib.sha256()
        self._moment = 0
        self._decided: dict[tuple[Any, ...], str] = {}  # with their idempotency keys
        self._settled: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
        self._touched: dict[tuple[Process, str], int] = {}
        self._taken: dict[tuple[Process, str, int, int], int] = {}
        self._heard: set[tuple[Any, ...]] = set()
        self._answered: set[str] = set()
        self._ended: set[str] = set()  # a late success may have opened some of them again
        engine.committed.append(self._engine_committed)
        services.committed.append(self._services_committed)
        broker.published.append(self._published)
        broker.delivered.append(self._delivered)
        broker.acknowledged.append(self._acknowledged)

    @property
    def digest(self) -> str:
        """The same for two simulations in which the same happened."""
        return self._hash.hexdigest()

    def violate(self, promise: str, what: str) -> None:
        """Note that a promise is broken."""
        self.violations.append(f"{promise}: {what}")

    def _note(self, *what: object) -> None:
        self._moment += 1
        self.counts[str(what[0])] += 1
        self._hash.update(repr(what).encode())

    def _engine_committed(self, tx: Transaction) -> None:
        self._note("commit", tx.process.name, [(name, len(new)) for name, new in tx.writes.items()])
        self._decided.update(
            (_command_of(row), row["idempotency_key"]) for row in _put(tx, "outbox")
        )
        self._months(tx)
        self._ended.update(row["run_id"] for row in _put(tx, "run") if row["finished_at"])
        for number, row in tx.writes.get("outbox", {}).items():
            if row is None:
                self._left(self._engine.rows["outbox"].get(number))
        self.counts["wait for a worker with the definition"] += len(_put(tx, "inbox"))
        touched = [key for table, key in tx.locked if table == "run"]
        touched += [row["run_id"] for row in _put(tx, "inbox")]
        touched += [row["message_id"] for row in _put(tx, "dead_letter")]
        self._touched.update(dict.fromkeys(((tx.process, each) for each in touched), self._moment))

    def _months(self, tx: Transaction) -> None:
        """A month goes, or a key: no start of it may wait, and no run of it be under way."""
        gone = {row["run_id"] for row in _put(tx, "detached run")}
        taken = [number for number, row in tx.writes.get("inbox", {}).items() if row is None]
        waiting = {
            row["run_id"]
            for number, row in self._engine.rows["inbox"].items()
            if row["kind"] == "start" and number not in taken
        }
        if gone:
            self.counts["months dropped"] += len(months := {month_of(each) for each in gone})
            if months & {month_of(each) for each in waiting}:
                self.violate("P1", "a month was dropped while a start of it waits")
        for pair, row in tx.writes.get("run_key", {}).items():
            if row is None and pair in self._engine.rows["run_key"]:
                self._released(self._engine.rows["run_key"][pair]["run_id"], waiting)

    def _released(self, run_id: str, waiting: Collection[str]) -> None:
        run = self._engine.rows["run"].get(run_id)
        if run_id in waiting or (run is not None and run["finished_at"] is None):
            self.violate("P1", f"the key of run {run_id} was released before its run ended")

    def _left(self, row: Row | None) -> None:
        """A row leaves the outbox: its command is confirmed, or nobody waits for it any more."""
        command = _command_of(row) if row else ()
        if row and command not in self._heard and self._awaited(row):
            self.violate("P6", f"command {command} was forgotten before it was confirmed")

    def _awaited(self, command: Row) -> bool:
        run = orjson.loads(self._engine.rows["run"][command["run_id"]]["state"])
        progress = run["steps"][command["step"]].get(command["direction"], {})
        wanted = ("in_flight", command["attempt"])
        return (progress.get("status"), progress.get("attempts")) == wanted

    def _services_committed(self, tx: Transaction) -> None:
        self._note("effect", tx.process.name, len(tx.writes.get("effect", ())))
        self.ledger.extend(_put(tx, "effect"))
        for row in _put(tx, "barrier"):
            self._settled[str(row["run_id"]), row["step"], row["direction"]].append(row)

    def _published(self, process: Process, message: Message, outcome: Published) -> None:
        self._note("publish", process.name, message.exchange, message.routing_key, outcome)
        if message.exchange == COMMANDS:
            place = tuple(message.headers[name] for name in (RUN_ID, STEP, DIRECTION, ATTEMPT))
            if outcome is not Published.UNKNOWN:
                self._heard.add(place)
            if place not in self._decided:
                self.violate("P6", f"command {place} left before its decision was committed")
        elif message.exchange == EVENTS:
            self._told(message)
        elif message.exchange == REPLIES and message.headers:
            self._replied(message)
            if outcome is Published.CONFIRMED:
                self._answered.add(message.correlation_id)

    def _told(self, message: Message) -> None:
        """A client is told that a run has ended, or what the engine makes of a request."""
        if message.type == FINISHED:
            if message.routing_key.split(".")[1] not in self._ended:
                self.violate("P6", f"{message.routing_key} was told before it was committed")
            return
        said = orjson.loads(message.body)
        outcome, run_id, version = said["outcome"], message.correlation_id, said["version"]
        named = self.accepted.get(run_id)
        if version is not None and said["run_id"] == run_id and named not in (None, version):
            self.violate("P1", f"run {run_id} was accepted as {named}, and is {version}")
        if outcome == AnswerOutcome.ACCEPTED:
            self.accepted[run_id] = named or version
            waiting = [row["run_id"] for row in self._engine.rows["inbox"].values()]
            if run_id not in self._engine.rows["run"] and run_id not in waiting:
                self.violate("P6", f"run {run_id} was accepted before that was committed")
        elif outcome == AnswerOutcome.UNKNOWN_RUN and message.routing_key == f"{ANSWER}.{KNOWN}":
            self.violate("P6", f"run {run_id} was accepted, and then unknown")

    def _replied(self, reply: Message) -> None:
        """What the barrier has said may be told late: another attempt may have been made since."""
        said = str(reply.headers[OUTCOME])
        *place, attempt = _place_of(reply.correlation_id)
        key = self._decided.get((*place, attempt))
        committed = any(
            row["outcome"] in _SAID.get(said, ())
            and (row["outcome"] == "compensated" or _is_for(row, key, attempt))
            for row in self._settled[tuple(place)]
        )
        if said in _SAID and reply.type in self._guarded and not committed:
            self.violate("P6", f"{said} of {place} was told and is not committed")

    def _delivered(self, process: Process, delivery: Delivery) -> None:
        self._note("deliver", process.name, delivery.queue)
        self._taken[process, delivery.queue, delivery.epoch, delivery.tag] = self._moment

    def _acknowledged(self, process: Process, delivery: Delivery) -> None:
        self._note("acknowledge", process.name, delivery.queue)
        taken = self._taken.pop((process, delivery.queue, delivery.epoch, delivery.tag))
        if not self._dealt_with(process, delivery, taken):
            self.violate("P6", f"{delivery.type} of {delivery.queue} was acknowledged too soon")

    def _dealt_with(self, process: Process, delivery: Delivery, since: int) -> bool:
        """Whether what a message means was committed between its delivery and now."""
        if delivery.queue not in (REPLIES, REQUESTS, DEAD_LETTERS):
            return delivery.correlation_id in self._answered
        if delivery.type == "status":
            return True  # it changes nothing
        if self._touched.get((process, delivery.message_id), 0) > since:
            return True
        if delivery.queue == DEAD_LETTERS:
            return False
        run_id, key = self._meant(delivery)
        if self._touched.get((process, run_id), 0) > since:
            return True
        there = run_id in self._engine.rows["run"]
        held = key in self._engine.rows["run_key"] or self._waits(run_id)
        return (there or held) if delivery.routing_key == "start" else not there

    def _waits(self, run_id: str) -> bool:
        """Whether the start of that run waits in PostgreSQL."""
        rows = self._engine.rows["inbox"].values()
        return any(row["kind"] == "start" and row["run_id"] == run_id for row in rows)

    def _meant(self, delivery: Delivery) -> tuple[str, tuple[str, str]]:
        """The run that a message means, and of a start the business key."""
        try:
            if delivery.queue == REPLIES:
                return _place_of(delivery.correlation_id)[0], ("", "")
            body = orjson.loads(delivery.body)
            return body["run_id"], (body.get("saga", ""), body.get("key", ""))
        except (ValueError, IndexError):
            return "", ("", "")  # rubbish


def _put(tx: Transaction, table: str) -> list[Row]:
    return [row for row in tx.writes.get(table, {}).values() if row is not None]


def _command_of(row: Row) -> tuple[Any, ...]:
    return row["run_id"], row["step"], row["direction"], row["attempt"]


def _is_for(row: Row, key: str | None, attempt: int) -> bool:
    """Whether the barrier's row answers an attempt: it is of the same key, or of a later one."""
    return bool(row["idempotency_key"] == key or row["attempt"] >= attempt)


def _place_of(token: str) -> tuple[str, str, str, int]:
    """Which command a correlation id stands for: run, step, direction and attempt."""
    _, run_id, letter, attempt, step = token.split(".", 4)
    direction = Direction.ACTION if letter == "a" else Direction.COMPENSATION
    return str(UUID(run_id)), step, direction.value, int(attempt)
