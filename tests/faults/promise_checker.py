"""
The promises P1 to P7, held against everything that was asked for, one by one.

Three witnesses: what the suite asked for, what the engine recorded (runs, journal, incidents, dead
letters), and what the services did, by their own ledger. What a process contains it tells in its
log alone, so that is read too. A violation is a sentence that begins with its promise.
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
from saga_engine.settings import Settings
from saga_engine.store import incidents, journal, outbox, runs
from saga_engine.store.database import Database
from saga_engine.vocabulary import Status
from tests.faults import workload
from tests.faults.environment import VHOST
from tests.faults.fault_events import FaultEventScanner
from tests.kit.connections import raw_channel
from tests.kit.programs import wait_until_true
from tests.kit.promises import check_run

SAGAS: dict[str, Saga] = {"order": workload.order_saga, "journey": workload.journey_saga}
BATCH_SIZE = 200
QUEUES = (
    *map(participant_queue, ("stock", "bank", "travel")),
    *(REPLIES, REQUESTS, DEAD_LETTERS),
)
"""In the order in which one message leads to the next: a look at one after the other sees it."""
UNACKNOWLEDGED = (
    'lists:sum([begin {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{}">>, queue, Name)),'
    " {{ok, {{_, Held}}, _}} = ra:leader_query("
    "amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1),"
    " Held end || Name <- [{}]])."
)
"""What each queue has, in somebody's hands or not; what list_queues says of that is 5 s old."""
BROKER_GAVE_UP = re.compile(rf"broker_delivery_limit: .* '{participant_queue('')}.*")
"""
The only reason of RabbitMQ's own that a fault orders: connections are cut while they hold commands.

Of no other fault is it a consequence. Nothing here expires, a full queue refuses what is published,
and what a participant rejects is what it takes for unreadable, which no command is.
"""


@dataclass
class CheckResult:
    """
    What is wrong, and how many runs were looked at.

    A violation comes with when its run lived, or None where it is not that of a run.
    """

    violations: list[tuple[str, tuple[datetime, datetime] | None]] = field(default_factory=list)
    runs: int = 0
    statuses: Counter = field(default_factory=Counter)

    def expect(self, condition, sentence, life=None):
        """Note a violation unless the condition holds."""
        if not condition:
            self.violations.append((sentence, life))


class PromiseChecker:
    """Judges what was asked for since it judged last."""

    def __init__(self, environment, load):
        self._environment, self._load = environment, load
        self._checked: set[str] = set()
        self._expected_dead_letters: set[int] = set()  # dead letters, of which a fault wanted some
        self._containment = FaultEventScanner([each.program.log for each in environment.members])
        self.rubbish: set[str] = set()

    async def wait_until_idle(self, *, patience=90.0):
        """
        Wait until nothing is on its way: a late reply may change a run that has ended.

        A message in somebody's hands is on its way as well, and may be there for 60 s: as long as a
        participant waits for another one, or RabbitMQ for a peer that is silent.
        """
        async with raw_channel(self._environment.broker_url) as channel:

            async def is_idle():
                declared = [await channel.queue_declare(each, passive=True) for each in QUEUES]
                [[left]] = await self._environment.execute(
                    "SELECT count(*) FROM saga_engine.outbox"
                )
                quiet = all(not each.message_count and each.consumer_count for each in declared)
                return quiet and not left and not await self._has_unacknowledged()

            await wait_until_true(is_idle, patience=patience)

    async def _has_unacknowledged(self):
        names = ",".join(f'<<"{each}">>' for each in QUEUES)
        try:
            held = await self._environment.rabbit.ctl("eval", UNACKNOWLEDGED.format(VHOST, names))
        except BrokerError:
            return True  # a node that has just come back does not know who leads
        return int(held) > 0

    def forget_checked(self):
        """Judge every run once more: what ended long ago must be as it was."""
        self._checked.clear()

    async def check(self) -> CheckResult:
        """Hold every promise against every new run."""
        findings = CheckResult()
        fresh = [each for each in self._load.asked if each not in self._checked]
        async with Database(self._environment.engine_url, Settings()) as database:
            for start in range(0, len(fresh), BATCH_SIZE):
                await self._check_batch(database, fresh[start : start + BATCH_SIZE], findings)
            await self._messages(database, findings)
        self._checked.update(fresh)
        findings.runs = len(fresh)
        return findings

    async def _check_batch(self, database, run_ids, findings):
        details = await _details(database, run_ids)
        done = await self._effects(run_ids)
        for run_id in run_ids:
            asked, detail = self._load.asked[run_id], details.get(run_id)
            if detail is None:
                kept = f"P6: {run_id} was accepted and is not there"
                findings.expect(not asked.accepted, kept)
                continue
            findings.statuses[asked.saga, detail.stored.run.status.value] += 1
            try:
                check_run(detail, detail.runs_with_incident)  # P1, P2, P3, P5
            except AssertionError as error:
                findings.violations.append((str(error)[:600], _run_interval(detail.stored.run)))
            _check_no_incident(findings, detail, asked)
            _check_effects(findings, detail, asked, done.get(asked.errand, []))  # P4, P6

    async def _effects(self, run_ids):
        errands = [self._load.asked[each].errand for each in run_ids]
        rows = await self._environment.execute(_LEDGER, errands, url=self._environment.shop_url)
        found = defaultdict(list)
        for errand, step, direction in rows:
            found[errand].append((step, direction))
        return found

    async def _messages(self, database, findings):
        """P7: set aside is what nobody can handle, to the last piece, and nothing else."""
        async with database.transaction() as tx:
            letters = (await tx.execute(_LETTERS)).all()
            pending = (await outbox.backlog(tx)).pending
        findings.expect(not pending, f"P6: {pending} commands are left in the outbox")
        if self._environment.gives_up:
            self._expected_dead_letters |= {
                each.id for each in letters if BROKER_GAVE_UP.fullmatch(each.why)
            }
            self._environment.gives_up = False
        lost = self.rubbish - {each.message_id for each in letters}
        findings.expect(not lost, f"P7: rubbish was lost: {sorted(lost)[:3]}")
        others = [
            each.why
            for each in letters
            if each.message_id not in self.rubbish and each.id not in self._expected_dead_letters
        ]
        findings.expect(not others, f"P7: set aside without need: {Counter(others)}")
        findings.violations += self._containment.unexpected_faults()
        try:
            self._environment.everybody_runs()
        except AssertionError as error:
            findings.violations.append((str(error), None))


@dataclass
class RunDetails:
    """A run, its journal, its saga's document, its incidents, and who else waits for a person."""

    stored: runs.StoredRun
    journal: list[journal.StoredEvent]
    document: dict
    incidents: list[incidents.StoredIncident]
    runs_with_incident: set[str]


async def _details(database, run_ids):
    async with database.transaction() as tx:
        await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        stored = await runs.read_unlocked(tx, run_ids)
        events = defaultdict(list)
        for run_id, *values in await tx.execute(_JOURNAL, {"run_ids": list(run_ids)}):
            events[run_id].append(
                journal.StoredEvent(**dict(zip(_EVENT_FIELDS, values, strict=True)))
            )
        opened = defaultdict(list)
        for each in await incidents.read_page(
            tx, incidents.IncidentFilter(include_resolved=True), limit=100_000
        ):
            opened[each.run_id].append(each)
    waiting = {each.run_id for of in opened.values() for each in of if each.resolved_at is None}
    return {
        run_id: RunDetails(
            each, events[run_id], _document(SAGAS[each.run.saga]), opened[run_id], waiting
        )
        for run_id, each in stored.items()
    }


def _document(saga):
    return {"steps": [{"name": name, "after": list(saga.after[name])} for name in saga.steps]}


def _run_interval(run):
    """From when to when; a run that has not ended lives still."""
    return run.started_at, run.finished_at or datetime.max.replace(tzinfo=UTC)


def _check_no_incident(findings, detail, request):
    """No whim of the shop's needs a person, and its retries outlast every fault."""
    run = detail.stored.run
    for each in detail.incidents:
        told = f"{each.cause} at {each.step}, {each.direction}, in {request.saga} {run.run_id}"
        sentence = f"P1: an incident without need: {told} ({request.whim})"
        findings.violations.append((sentence, _run_interval(run)))


def _check_effects(findings, detail, request, effects: Iterable[tuple[str, str]]):
    """P4 and P6: each effect once, and none that nobody had decided."""
    run, done = detail.stored.run, list(effects)
    life = _run_interval(run)
    of = f"{request.saga} {run.run_id} ({request.whim}, {run.status})"
    doubled = [each for each, number in Counter(done).items() if number > 1]
    findings.expect(not doubled, f"P4: doubled {doubled} in {of}", life)
    ordered = {
        (each.data["step"], each.data["direction"])
        for each in detail.journal
        if each.type == "attempt_started"
    }
    undecided = set(done) - ordered
    findings.expect(not undecided, f"P6: nobody decided {undecided} in {of}", life)
    forward = {step for step, direction in done if direction == "action"}
    back = {step for step, direction in done if direction == "compensation"}
    if run.status is Status.COMPLETED:
        missing = set(SAGAS[request.saga].steps) - forward
        findings.expect(
            not missing and not back, f"P4: {missing} missing, {back} undone in {of}", life
        )
    if run.status is Status.COMPENSATED:
        findings.expect(forward == back, f"P4: did {forward}, undid {back} in {of}", life)
        _check_compensation_order(findings, SAGAS[request.saga], done, of, life)


def _check_compensation_order(findings, saga, done, of, run_interval):
    """P3, by the ledger: undone only after every step that depended on it."""
    place = {each: number for number, each in enumerate(done)}
    for step in saga.steps:
        undone = place.get((step, "compensation"))
        for later in saga.descendants[step]:
            after = place.get((later, "compensation"))
            if undone is not None and after is not None:
                findings.expect(
                    after < undone, f"P3: {step} undone before {later} in {of}", run_interval
                )


_LEDGER = "SELECT errand, step, direction FROM ledger WHERE errand = ANY ($1) ORDER BY id"
_LETTERS = text(
    "SELECT id, message_id, reason || ': ' || detail AS why FROM saga_engine.dead_letter"
)
_EVENT_FIELDS = ("revision", "type", "recorded_at", "data", "metadata", "position")
_JOURNAL = text(
    """
    SELECT run_id::text, revision, type, recorded_at, data, metadata, position
        FROM saga_engine.event
    WHERE run_id = ANY (CAST(:run_ids AS uuid[])) ORDER BY run_id, revision"""
)
