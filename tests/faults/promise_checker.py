"""
Checks the promises P1 to P7 for every requested run.

It compares four sources: what the suite requested, what the engine recorded (runs, journal,
incidents, dead letters), which runs the workers held in memory, and what the participants did, by
their effect log. Internal errors are only in the logs of the processes, so it reads those too. A
violation is a sentence that begins with its promise.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import text

from saga_engine.errors import BrokerError
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS, participant_queue
from saga_engine.saga.definition import Saga
from saga_engine.store import incidents, journal, outbox, run_queries, runs
from saga_engine.store.database import Database
from saga_engine.vocabulary import Status
from tests.faults import workload
from tests.faults.environment import VHOST, FaultEnvironment
from tests.faults.fault_events import FaultEventScanner
from tests.faults.held_runs import HeldRunReader
from tests.faults.load_generator import LoadGenerator, RequestedRun
from tests.kit.connections import raw_channel
from tests.kit.engine import SLOW_TEST_SETTINGS
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_run

SAGAS: dict[str, Saga] = {"order": workload.order_saga, "journey": workload.journey_saga}
BATCH_SIZE = 200
QUEUES = (
    *map(participant_queue, ("stock", "bank", "travel")),
    *(REPLIES, REQUESTS, DEAD_LETTERS),
)
"""In the order in which one message causes the next, so that checking them in turn misses none."""
UNACKNOWLEDGED = (
    'lists:sum([begin {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{}">>, queue, Name)),'
    " {{ok, {{_, Total}}, _}} = ra:leader_query("
    "amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1),"
    " Total end || Name <- [{}]])."
)
"""All messages of each queue, unacknowledged ones included; list_queues is 5 s late."""
BROKER_GAVE_UP = re.compile(rf"broker_delivery_limit: .* '{participant_queue('')}.*")
"""
The only reason of RabbitMQ that a fault causes: connections are cut while they hold commands.

No other fault has it as a consequence. No message here expires, a full queue nacks publishes, and a
participant rejects only unreadable messages, which no command is.
"""


@dataclass
class CheckResult:
    """
    The violations, and the number of runs that were checked.

    A violation has the interval of its run, or None if it is not about a run.
    """

    violations: list[tuple[str, tuple[datetime, datetime] | None]] = field(default_factory=list)
    runs: int = 0
    statuses: Counter = field(default_factory=Counter)

    def expect(self, condition, sentence, interval=None):
        """Record a violation unless the condition holds."""
        if not condition:
            self.violations.append((sentence, interval))


class PromiseChecker:
    """Checks the runs that were requested since the last check."""

    def __init__(self, environment: FaultEnvironment, load: LoadGenerator):
        self._environment, self._load = environment, load
        self._checked: set[str] = set()
        self._expected_dead_letters: set[int] = set()  # dead letters that a fault caused
        self._internal_errors = FaultEventScanner(
            [each.program.log for each in environment.processes]
        )
        self._held_runs = HeldRunReader(environment.held_runs_directory)
        self.malformed_message_ids: set[str] = set()

    async def wait_until_idle(self, *, patience=90.0):
        """
        Wait until no message is in transit: a late reply may change a finished run.

        Unacknowledged messages count, and may take 60 s: as long as a participant waits for another
        one, or RabbitMQ for a silent peer.
        """
        async with raw_channel(self._environment.broker_url) as channel:

            async def is_idle():
                declared = [await channel.queue_declare(each, passive=True) for each in QUEUES]
                [[pending]] = await self._environment.execute(
                    "SELECT count(*) FROM saga_engine.outbox"
                )
                idle = all(not each.message_count and each.consumer_count for each in declared)
                return idle and not pending and not await self._has_unacknowledged()

            await wait_until_true(is_idle, patience=patience)

    async def _has_unacknowledged(self):
        names = ",".join(f'<<"{each}">>' for each in QUEUES)
        try:
            command = UNACKNOWLEDGED.format(VHOST, names)
            count = await self._environment.rabbit.rabbitmqctl("eval", command)
        except BrokerError:
            return True  # a node that has just restarted does not know the leader
        return int(count) > 0

    def forget_checked(self):
        """Check every run again: those that finished long ago must be unchanged."""
        self._checked.clear()

    async def check(self) -> CheckResult:
        """Check every promise for every new run."""
        findings = CheckResult()
        self._held_runs.read()
        new = [each for each in self._load.requested if each not in self._checked]
        async with Database(self._environment.engine_url, SLOW_TEST_SETTINGS) as database:
            for start in range(0, len(new), BATCH_SIZE):
                await self._check_batch(database, new[start : start + BATCH_SIZE], findings)
            await self._check_messages(database, findings)
        self._checked.update(new)
        findings.runs = len(new)
        return findings

    async def _check_batch(self, database: Database, run_ids, findings: CheckResult):
        details = await _details(database, run_ids)
        effects = await self._effects(run_ids)
        for run_id in run_ids:
            request, detail = self._load.requested[run_id], details.get(run_id)
            if detail is None:
                violation = f"P6: {run_id} was accepted and does not exist"
                findings.expect(not request.accepted, violation)
                continue
            findings.statuses[request.saga, detail.stored_run.run.status.value] += 1
            try:
                # P1, P2, P3, P5
                check_run(detail, detail.summary, detail.revisions, detail.runs_with_incident)
            except AssertionError as error:
                findings.violations.append((str(error)[:600], _run_interval(detail.stored_run.run)))
            findings.violations += [
                (each, _run_interval(detail.stored_run.run))
                for each in self._held_runs.problems(run_id, detail.journal, detail.revisions)
            ]
            _check_no_incident(findings, detail, request)
            _check_effects(findings, detail, request, effects.get(request.job_id, []))  # P4, P6

    async def _effects(self, run_ids):
        job_ids = [self._load.requested[each].job_id for each in run_ids]
        rows = await self._environment.execute(_EFFECTS, job_ids)
        found = defaultdict(list)
        for job_id, step, direction in rows:
            found[job_id].append((step, direction))
        return found

    async def _check_messages(self, database: Database, findings: CheckResult):
        """P7: exactly the malformed messages are dead letters."""
        async with database.transaction() as tx:
            dead_letters = (await tx.execute(_DEAD_LETTERS)).all()
            pending = (await outbox.backlog(tx)).pending
        findings.expect(not pending, f"P6: {pending} commands are left in the outbox")
        if self._environment.broker_drops_commands:
            self._expected_dead_letters |= {
                each.id for each in dead_letters if BROKER_GAVE_UP.fullmatch(each.why)
            }
            self._environment.broker_drops_commands = False
        lost = self.malformed_message_ids - {each.message_id for each in dead_letters}
        findings.expect(not lost, f"P7: malformed messages were lost: {sorted(lost)[:3]}")
        others = [
            each.why
            for each in dead_letters
            if each.message_id not in self.malformed_message_ids
            and each.id not in self._expected_dead_letters
        ]
        findings.expect(not others, f"P7: dead-lettered without reason: {Counter(others)}")
        findings.violations += self._internal_errors.unexpected_faults()
        try:
            self._environment.assert_all_running()
        except AssertionError as error:
            findings.violations.append((str(error), None))


@dataclass
class RunDetails:
    """
    A run, its columns, its journal, its saga's document, its incidents; all runs with open ones.

    `revisions` are those of the rows of its journal; a row may have no events.
    """

    stored_run: runs.StoredRun
    summary: run_queries.RunSummary
    revisions: list[int]
    journal: list[journal.StoredEvent]
    document: dict
    incidents: list[incidents.StoredIncident]
    runs_with_incident: set[str]


async def _details(database: Database, run_ids):
    async with database.transaction() as tx:
        await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        stored = await runs.read(tx, run_ids)
        found = [await run_queries.find(tx, run_id) for run_id in stored]
        summaries = {each.run_id: each for each in found if each is not None}
        events = defaultdict[str, list[journal.StoredEvent]](list)
        revisions = defaultdict[str, list[int]](list)
        for run_id, *values in await tx.execute(_JOURNAL, {"run_ids": list(run_ids)}):
            revisions[run_id].append(values[0])
            events[run_id].extend(journal.stored_events(*values))
        by_run = defaultdict(list)
        for each in await incidents.read_page(
            tx, incidents.IncidentFilter(include_resolved=True), limit=100_000
        ):
            by_run[each.run_id].append(each)
    runs_with_incident = {
        each.run_id for found in by_run.values() for each in found if each.resolved_at is None
    }
    return {
        run_id: RunDetails(
            each,
            summaries[run_id],
            revisions[run_id],
            events[run_id],
            _document(SAGAS[each.run.saga]),
            by_run[run_id],
            runs_with_incident,
        )
        for run_id, each in stored.items()
    }


def _document(saga: Saga):
    after = saga.predecessors
    return {"steps": [{"name": name, "after": list(after[name])} for name in saga.steps]}


def _run_interval(run):
    """The time of its start and end; an unfinished run has no end yet."""
    return run.started_at, run.finished_at or datetime.max.replace(tzinfo=UTC)


def _check_no_incident(findings: CheckResult, detail: RunDetails, request: RequestedRun):
    """No scenario needs an operator, and the retries outlast every fault."""
    run = detail.stored_run.run
    for each in detail.incidents:
        incident = f"{each.cause} at {each.step}, {each.direction}, in {request.saga} {run.run_id}"
        sentence = f"P1: an incident without reason: {incident} ({request.scenario})"
        findings.violations.append((sentence, _run_interval(run)))


def _check_effects(
    findings: CheckResult,
    detail: RunDetails,
    request: RequestedRun,
    effects: Iterable[tuple[str, str]],
):
    """P4 and P6: each effect once, and none without a decision."""
    run, done = detail.stored_run.run, list(effects)
    interval = _run_interval(run)
    of = f"{request.saga} {run.run_id} ({request.scenario}, {run.status})"
    repeated = [each for each, number in Counter(done).items() if number > 1]
    findings.expect(not repeated, f"P4: repeated {repeated} in {of}", interval)
    decided = {
        (each.data["step"], each.data["direction"])
        for each in detail.journal
        if each.type == "attempt_started"
    }
    undecided = set(done) - decided
    findings.expect(not undecided, f"P6: {undecided} without a decision in {of}", interval)
    forward = {step for step, direction in done if direction == "action"}
    compensated = {step for step, direction in done if direction == "compensation"}
    if run.status is Status.COMPLETED:
        missing = set(SAGAS[request.saga].steps) - forward
        findings.expect(
            not missing and not compensated,
            f"P4: {missing} missing, {compensated} compensated in {of}",
            interval,
        )
    if run.status is Status.COMPENSATED:
        findings.expect(
            forward == compensated,
            f"P4: did {forward}, compensated {compensated} in {of}",
            interval,
        )
        _check_compensation_order(findings, SAGAS[request.saga], done, of, interval)


def _check_compensation_order(findings: CheckResult, saga: Saga, done, of, run_interval):
    """P3, by the effect log: compensated only after every step that depended on it."""
    position = {each: number for number, each in enumerate(done)}
    for step in saga.steps:
        compensation = position.get((step, "compensation"))
        for later in saga.descendants[step]:
            later_compensation = position.get((later, "compensation"))
            if compensation is not None and later_compensation is not None:
                findings.expect(
                    later_compensation < compensation,
                    f"P3: {step} compensated before {later} in {of}",
                    run_interval,
                )


_EFFECTS = "SELECT job_id, step, direction FROM effect_log WHERE job_id = ANY ($1) ORDER BY id"
_DEAD_LETTERS = text(
    "SELECT id, message_id, reason || ': ' || detail AS why FROM saga_engine.dead_letter"
)
_JOURNAL = text(
    """
    SELECT run_id::text, revision, recorded_at, position, events::text
        FROM saga_engine.journal
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) ORDER BY run_id, revision"""
)
