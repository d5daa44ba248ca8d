"""
Checks P6 during a simulation: nothing is acknowledged or published before its commit.

The monitor observes the commits of the databases and the messages of the broker. It knows the
engine's tables and wire format only, and compares each publish and each acknowledgement with what
is committed at that moment.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

import orjson

from saga_engine.decider.evolve import replay
from saga_engine.decider.run import StepStatus
from saga_engine.protocol.answer import (
    ANSWER_TYPE,
    LISTENER_PROBE_TYPE,
    RUN_FINISHED_TYPE,
    AnswerOutcome,
)
from saga_engine.protocol.command import (
    ATTEMPT_HEADER,
    DIRECTION_HEADER,
    RUN_ID_HEADER,
    STEP_HEADER,
)
from saga_engine.protocol.message import Delivery, Message, PublishOutcome
from saga_engine.protocol.reply import OUTCOME_HEADER
from saga_engine.protocol.topology import (
    COMMANDS,
    DEAD_LETTERS,
    EVENTS,
    REPLIES,
    REQUESTS,
    is_reply_queue,
)
from saga_engine.store.event_data import deserialize_event
from saga_engine.store.runs import FIRST_REVISION
from saga_engine.vocabulary import Direction, Outcome
from simulation.broker_model import BrokerModel
from simulation.client import KNOWN_REPLY_TO
from simulation.memory_database import MemoryDatabase, MemoryTransaction
from simulation.partition_model import month_of_run
from simulation.process import SimulatedProcess
from simulation.rows import Row, stored_events_of

_BARRIER_OUTCOMES = {
    Outcome.SUCCEEDED.value: (Outcome.SUCCEEDED.value,),
    Outcome.REJECTED.value: (Outcome.REJECTED.value, "compensated"),
}
"""The outcomes of a barrier row that allow a reply with the given outcome."""


class Monitor:
    """
    Observes one simulation.

    `effects` are in the order of their commits. `violations` are sentences that begin with the
    promise they break. `accepted_versions` has the runs whose start was accepted, with the version
    in the answer. `digest` is a hash of everything that happened.
    """

    def __init__(
        self,
        engine_db: MemoryDatabase,
        services_db: MemoryDatabase,
        broker: BrokerModel,
        barrier_commands: Collection[str],
    ) -> None:
        self.violations: list[str] = []
        self.effects: list[Row] = []
        self.counts: Counter[str] = Counter()
        self.accepted_versions: dict[str, int | None] = {}
        self._engine_db = engine_db
        self._services_db = services_db
        self._barrier_commands = barrier_commands
        self._hash = hashlib.sha256()
        self._sequence = 0
        self._idempotency_keys: dict[tuple[Any, ...], str] = {}  # of committed commands
        self._barrier_rows: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
        self._last_written: dict[tuple[SimulatedProcess, str], int] = {}
        self._delivered_at: dict[tuple[SimulatedProcess, str, int, int], int] = {}
        self._published_commands: set[tuple[Any, ...]] = set()
        self._confirmed_replies: set[str] = set()
        self._finished_runs: set[str] = set()  # A late success may have reopened some of them.
        engine_db.on_commit.append(self._on_engine_commit)
        engine_db.on_deadlock.append(self._on_deadlock)
        services_db.on_commit.append(self._on_services_commit)
        broker.on_published.append(self._on_published)
        broker.on_delivered.append(self._on_delivered)
        broker.on_acknowledged.append(self._on_acknowledged)

    @property
    def digest(self) -> str:
        """Equal for two simulations in which the same things happened."""
        return self._hash.hexdigest()

    def record_violation(self, promise: str, what: str) -> None:
        """Record a broken promise."""
        self.violations.append(f"{promise}: {what}")

    def _record(self, *what: object) -> None:
        self._sequence += 1
        self.counts[str(what[0])] += 1
        self._hash.update(repr(what).encode())

    def _on_engine_commit(self, tx: MemoryTransaction) -> None:
        self._record(
            "commit", tx.process.name, [(name, len(new)) for name, new in tx.writes.items()]
        )
        self._idempotency_keys.update(
            (_command_ref(row), row["idempotency_key"]) for row in _written_rows(tx, "outbox")
        )
        self._check_dropped_months(tx)
        self._check_appended_rows(tx)
        self._finished_runs.update(
            row["run_id"] for row in _written_rows(tx, "run") if row["finished_at"]
        )
        for number, row in tx.writes.get("outbox", {}).items():
            if row is None:
                self._check_outbox_delete(self._engine_db.rows["outbox"].get(number))
        self.counts["pending requests"] += len(_written_rows(tx, "pending_request"))
        written_ids = list(tx.decided_runs)
        written_ids += [row["run_id"] for row in _written_rows(tx, "pending_request")]
        written_ids += [row["message_id"] for row in _written_rows(tx, "dead_letter")]
        self._last_written.update(
            dict.fromkeys(((tx.process, each) for each in written_ids), self._sequence)
        )

    def _on_deadlock(self, tx: MemoryTransaction) -> None:
        self.record_violation("P7", f"a deadlock ended a transaction of {tx.process.name}")

    def _check_dropped_months(self, tx: MemoryTransaction) -> None:
        """Check that dropped partitions and released keys have no pending start or running run."""
        dropped_runs = {row["run_id"] for row in _written_rows(tx, "detached run")}
        deleted_requests = [
            number for number, row in tx.writes.get("pending_request", {}).items() if row is None
        ]
        pending_starts = {
            row["run_id"]
            for number, row in self._engine_db.rows["pending_request"].items()
            if row["kind"] == "start" and number not in deleted_requests
        }
        if dropped_runs:
            self.counts["partitions dropped"] += len(
                months := {month_of_run(each) for each in dropped_runs}
            )
            if months & {month_of_run(each) for each in pending_starts}:
                self.record_violation(
                    "P1", "a partition was dropped that a pending start belongs to"
                )
        for pair, row in tx.writes.get("business_key", {}).items():
            if row is None and pair in self._engine_db.rows["business_key"]:
                self._check_released_key(
                    self._engine_db.rows["business_key"][pair]["run_id"], pending_starts
                )

    def _check_appended_rows(self, tx: MemoryTransaction) -> None:
        """Check that rows of journals follow one another, also after a month was dropped."""
        written, committed = tx.writes.get("journal", {}), self._engine_db.rows["journal"]
        for (run_id, revision), row in written.items():
            before = (run_id, revision - 1)
            is_next = before in committed or written.get(before) is not None
            if row is not None and revision > FIRST_REVISION and not is_next:
                self.record_violation("P5", f"a row was appended to the dropped run {run_id}")

    def _check_released_key(self, run_id: str, pending_starts: Collection[str]) -> None:
        run = self._engine_db.rows["run"].get(run_id)
        if run_id in pending_starts or (run is not None and run["finished_at"] is None):
            self.record_violation(
                "P1", f"the key of run {run_id} was released before its run ended"
            )

    def _check_outbox_delete(self, row: Row | None) -> None:
        """Check that a command deleted from the outbox was confirmed or is no longer awaited."""
        command = _command_ref(row) if row else ()
        if row and command not in self._published_commands and self._is_awaited(row):
            self.record_violation("P6", f"command {command} was deleted before it was confirmed")

    def _is_awaited(self, command: Row) -> bool:
        rows = self._engine_db.rows["journal"]
        revisions = itertools.takewhile(
            lambda key: key in rows, ((command["run_id"], number) for number in itertools.count(1))
        )
        stored_events = [event for key in revisions for event in stored_events_of(rows[key])]
        try:
            run = replay(deserialize_event(each.type, each.data) for each in stored_events)
        except AssertionError:  # the journal is damaged, which the final checks report
            return False
        assert run is not None
        progress = run.steps[command["step"]].progress_of(Direction(command["direction"]))
        return progress.status is StepStatus.IN_FLIGHT and progress.attempts == command["attempt"]

    def _on_services_commit(self, tx: MemoryTransaction) -> None:
        self._record("effect", tx.process.name, len(tx.writes.get("effect", ())))
        self.effects.extend(_written_rows(tx, "effect"))
        for row in _written_rows(tx, "barrier"):
            self._barrier_rows[str(row["run_id"]), row["step"], row["direction"]].append(row)

    def _on_published(
        self, process: SimulatedProcess, message: Message, outcome: PublishOutcome
    ) -> None:
        self._record("publish", process.name, message.exchange, message.routing_key, outcome)
        if message.exchange == COMMANDS:
            command_ref = tuple(
                message.headers[name]
                for name in (RUN_ID_HEADER, STEP_HEADER, DIRECTION_HEADER, ATTEMPT_HEADER)
            )
            if outcome is not PublishOutcome.UNKNOWN:
                self._published_commands.add(command_ref)
            if command_ref not in self._idempotency_keys:
                self.record_violation(
                    "P6", f"command {command_ref} was published before its decision was committed"
                )
        elif message.exchange == EVENTS:
            self._check_client_message(message)
        elif message.exchange == REPLIES and message.headers:
            self._check_reply(message)
            if outcome is PublishOutcome.CONFIRMED:
                self._confirmed_replies.add(message.correlation_id)

    def _check_client_message(self, message: Message) -> None:
        """Check a message to a client: the end of a run, a probe, or the answer to a request."""
        if message.type in (RUN_FINISHED_TYPE, LISTENER_PROBE_TYPE):
            for key in (message.routing_key, *message.other_routing_keys):
                if key.split(".")[1] not in self._finished_runs:
                    self.record_violation("P6", f"{key} was published before it was committed")
            return
        answer = orjson.loads(message.body)
        outcome, run_id, version = answer["outcome"], message.correlation_id, answer["version"]
        accepted_version = self.accepted_versions.get(run_id)
        if (
            version is not None
            and answer["run_id"] == run_id
            and accepted_version not in (None, version)
        ):
            self.record_violation(
                "P1", f"run {run_id} was accepted as version {accepted_version} and is {version}"
            )
        if outcome == AnswerOutcome.ACCEPTED:
            self.accepted_versions[run_id] = accepted_version or version
            pending_run_ids = [
                row["run_id"] for row in self._engine_db.rows["pending_request"].values()
            ]
            if run_id not in self._engine_db.rows["run"] and run_id not in pending_run_ids:
                self.record_violation("P6", f"run {run_id} was accepted before the commit")
        elif (
            outcome == AnswerOutcome.UNKNOWN_RUN
            and message.routing_key == f"{ANSWER_TYPE}.{KNOWN_REPLY_TO}"
        ):
            self.record_violation("P6", f"run {run_id} was accepted and then unknown")

    def _check_reply(self, reply: Message) -> None:
        """Check that the barrier has committed a reply; it may belong to an earlier attempt."""
        outcome = str(reply.headers[OUTCOME_HEADER])
        *command_ref, attempt = _parse_token(reply.correlation_id)
        key = self._idempotency_keys.get((*command_ref, attempt))
        committed = any(
            row["outcome"] in _BARRIER_OUTCOMES.get(outcome, ())
            and (row["outcome"] == "compensated" or _covers_attempt(row, key, attempt))
            for row in self._barrier_rows[tuple(command_ref)]
        )
        if outcome in _BARRIER_OUTCOMES and reply.type in self._barrier_commands and not committed:
            self.record_violation(
                "P6", f"{outcome} of {command_ref} was published and is not committed"
            )

    def _on_delivered(self, process: SimulatedProcess, delivery: Delivery) -> None:
        self._record("deliver", process.name, delivery.queue)
        self._delivered_at[process, delivery.queue, delivery.generation, delivery.delivery_tag] = (
            self._sequence
        )

    def _on_acknowledged(self, process: SimulatedProcess, delivery: Delivery) -> None:
        self._record("acknowledge", process.name, delivery.queue)
        delivered_at = self._delivered_at.pop(
            (process, delivery.queue, delivery.generation, delivery.delivery_tag)
        )
        if not self._is_handled(process, delivery, delivered_at):
            self.record_violation(
                "P6", f"{delivery.type} of {delivery.queue} was acknowledged too soon"
            )

    def _is_handled(self, process: SimulatedProcess, delivery: Delivery, since: int) -> bool:
        """Whether the effect of a message was committed after its delivery."""
        if delivery.queue not in (REQUESTS, DEAD_LETTERS) and not is_reply_queue(delivery.queue):
            return delivery.correlation_id in self._confirmed_replies
        if delivery.type == "status":
            return True  # It changes nothing.
        if self._last_written.get((process, delivery.message_id), 0) > since:
            return True
        if delivery.queue == DEAD_LETTERS:
            return False
        run_id, key = self._run_and_key(delivery)
        if self._last_written.get((process, run_id), 0) > since:
            return True
        run_exists = run_id in self._engine_db.rows["run"]
        is_reserved = key in self._engine_db.rows["business_key"] or self._start_is_pending(run_id)
        return (run_exists or is_reserved) if delivery.routing_key == "start" else not run_exists

    def _start_is_pending(self, run_id: str) -> bool:
        """Whether the start of a run is pending."""
        rows = self._engine_db.rows["pending_request"].values()
        return any(row["kind"] == "start" and row["run_id"] == run_id for row in rows)

    def _run_and_key(self, delivery: Delivery) -> tuple[str, tuple[str, str]]:
        """The run of a message, and the business key if it is a start."""
        try:
            if is_reply_queue(delivery.queue):
                return _parse_token(delivery.correlation_id)[0], ("", "")
            body = orjson.loads(delivery.body)
            return body["run_id"], (body.get("saga", ""), body.get("key", ""))
        except (ValueError, IndexError):
            return "", ("", "")  # It is malformed.


def _written_rows(tx: MemoryTransaction, table: str) -> list[Row]:
    return [row for row in tx.writes.get(table, {}).values() if row is not None]


def _command_ref(row: Row) -> tuple[Any, ...]:
    return row["run_id"], row["step"], row["direction"], row["attempt"]


def _covers_attempt(row: Row, key: str | None, attempt: int) -> bool:
    """Whether a barrier row answers an attempt: it has the same key or a later attempt."""
    return bool(row["idempotency_key"] == key or row["attempt"] >= attempt)


def _parse_token(token: str) -> tuple[str, str, str, int]:
    """The command of a correlation id: run, step, direction and attempt."""
    _, run_id, direction_code, attempt, step = token.split(".", 4)
    direction = Direction.ACTION if direction_code == "a" else Direction.COMPENSATION
    return str(UUID(run_id)), step, direction.value, int(attempt)
