"""
A simulated world: workers, participants and clients over the models, faults, and then peace.

The code of worker, participant, store and core is the real one. Everything by chance is drawn from
the seed, so a world happens again exactly as it did. When the faults have ended everything must
come to its end by itself; then every promise is asserted.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from saga_engine.amqp import consumer as real_consumer
from saga_engine.amqp import publisher as real_publisher
from saga_engine.errors import SagaEngineError
from saga_engine.participant import database as real_participant_database
from saga_engine.participant import dispatcher as participant_shift
from saga_engine.participant.executor import Performer
from saga_engine.payload.encryption import PLAIN
from saga_engine.protocol.topology import (
    ENGINE,
    REPLIES,
    REQUESTS,
    participant_queue,
    participant_topology,
)
from saga_engine.settings import Settings
from saga_engine.store import database as real_database
from saga_engine.store import runs
from saga_engine.telemetry.events import Fact, FaultFound, HandlerFailed, Tell
from saga_engine.vocabulary import Direction
from saga_engine.worker.loops import QUEUES, Shift, register
from simulation import (
    barrier_model,
    hostile_rows,
    partition_model,
    pending_model,
    run_model,
    virtual_time,
)
from simulation.broker_model import Broker, Consumer, Publisher
from simulation.client import Client, rubbish, set_aside
from simulation.faults import Fault, Faults, dice
from simulation.hostile_rows import Hostile
from simulation.memory_database import Database, Tables
from simulation.monitor import Witness
from simulation.operator import Operator, unsettled
from simulation.partition_model import DETACHED, DROPPED, ID_AGE, KEEP
from simulation.process import Process
from simulation.promises import broken, stories
from simulation.rollout import Rollout
from simulation.workload import Lots, Play, participant

Life = Callable[[Process], Awaitable[None]]

ACCEPTED = 120.0
"""Seconds until which run ids are young enough, in a world with retention."""

LAST, AFTER = 200.0, 60.0
"""Seconds after which all versions are loaded there, and how much longer months are dropped."""

RETENTION: dict[str, Any] = {"retention_days": 1, "maintenance": 15.0}

STORM = 30.0
"""Seconds in which runs are started and faults strike."""

PATIENCE, POINTS = 1800.0, 50_000
"""Seconds of peace, and points, after which what has not come to its end goes round in circles."""

RUBBISH = (REPLIES, REQUESTS)
"""The exchanges to which messages are sent that nobody can read."""

BROKEN = ("TypeError", "AttributeError")
"""What no handler of a simulation raises, and a planted bug does that does not fit."""

SETTINGS = Settings(poll=2.0, outbox_flush=2.0, outbox_age=8.0, maintenance=120.0)
"""The defaults, but patient: looking ten times a second for nothing is most of the work."""


@dataclass(frozen=True, slots=True)
class Setup:
    """
    How large a world is, and how often something goes wrong: once in `every` points.

    `places` is how many runs of a saga are under way at once; the others wait for their turn.
    `hostile` rows are written by another role, and operators act `acts` times. With `retention` the
    months of finished runs are dropped. `batch_bytes` is the setting: fewer are as good as larger
    payloads.
    """

    seed: int
    runs: int = 30
    workers: int = 2
    participants: int = 2
    every: float = 50
    places: int = SETTINGS.runs_in_flight
    hostile: int = 0
    acts: int = 0
    retention: bool = False
    batch_bytes: int = SETTINGS.batch_bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a world; `faults` are those that struck, `digest` stands for all of it."""

    runs: int
    statuses: Counter[str]
    counts: Counter[str]
    faults: Sequence[Fault]
    violations: Sequence[str]
    digest: str


def simulate(setup: Setup, plays: Sequence[Play], faults: Faults | None = None) -> Outcome:
    """
    Let a world happen.

    Args:
        faults: those that strike; drawn from the seed when left out.
    """
    if faults is None:
        faults = Faults(dice(setup.seed, "faults"), every=setup.every)
    return virtual_time.run(World(setup, plays, faults).happen())


class World:
    """One world; `happen` once."""

    def __init__(self, setup: Setup, plays: Sequence[Play], faults: Faults) -> None:
        self._setup = setup
        changed: dict[str, Any] = {"runs_in_flight": setup.places, "batch_bytes": setup.batch_bytes}
        if setup.retention:
            changed |= RETENTION
        self._settings = SETTINGS.model_copy(update=changed)
        self._plays = plays
        self._rollout = Rollout(plays, LAST if setup.retention else STORM * 0.9)
        self._faults = faults
        self._dice = dice(setup.seed, "network")
        self._engine = Tables(
            run_model.ANSWERS, pending_model.ANSWERS, partition_model.ANSWERS, hostile_rows.ANSWERS
        )
        self._services = Tables(barrier_model.ANSWERS)
        self._broker = Broker(self._dice)
        self._broker.declare(ENGINE)
        self._lots = Lots(setup.seed, forgetful=not setup.acts)
        self._witness = Witness(self._engine, self._services, self._broker, _guarded(plays))
        self._counts: Counter[str] = Counter()
        self._group = asyncio.TaskGroup()
        self._processes: dict[str, Process] = {}
        self._over = False
        self._hostile: Hostile | None = None

    async def happen(self) -> Outcome:
        """Let it happen, and hold it against the promises."""
        async with self._group:
            for number in range(self._setup.workers):
                self._begin(f"worker {number}", partial(self._worker, number))
            self._group.create_task(self._roll_out())
            for number in range(self._setup.participants):
                self._begin(f"participant {number}", self._participant)
            async with asyncio.TaskGroup() as clients:
                self._ask(clients)
                await asyncio.sleep(STORM)
                self._faults.end()
                self._lots.calm()
                await asyncio.sleep(LAST + AFTER - STORM if self._setup.retention else 0.0)
            await self._settle()
            self._over = True
            for process in self._processes.values():
                process.stop.set()
        return await self._judge()

    # the processes

    def _begin(self, name: str, life: Life) -> None:
        self._group.create_task(self._keep(name, life))

    async def _keep(self, name: str, life: Life) -> None:
        """Start a process, and start it again whenever it has died."""
        while not self._over:
            process = self._processes[name] = Process(name, self._faults, self._dice)
            task = self._group.create_task(self._live(process, life))
            process.begin(task)
            await asyncio.wait([task])
            self._counts["stops" if process.alive else "crashes"] += 1
            await asyncio.sleep(process.down)

    async def _roll_out(self) -> None:
        """Replace the workers, one after the other, at each stage of the rollout."""
        clock = asyncio.get_running_loop()
        for at in self._rollout.times:
            await asyncio.sleep(at - clock.time())
            for number in range(self._setup.workers):
                self._processes[f"worker {number}"].stop.set()
                await asyncio.sleep(self._dice.random())

    async def _live(self, process: Process, life: Life) -> None:
        try:
            await life(process)
            if not process.stop.is_set():
                self._witness.violate("P7", f"{process.name} ended by itself")
        except SagaEngineError:
            process.down = 1.0  # it could not begin; whatever supervises it starts it again
        except Exception as error:  # noqa: BLE001 - that is the point
            self._witness.violate("P7", f"{process.name} ended: {error!r}")
        finally:
            process.close()

    async def _worker(self, number: int, process: Process) -> None:
        plays = self._rollout.loaded(number, asyncio.get_running_loop().time())
        database = cast(
            "real_database.Database",
            Database(self._engine, process, self._settings.database_lock_timeout),
        )
        tell = Tell(self._told)
        sagas = [play.saga for play in plays]
        registered = await register(database, sagas, PLAIN, tell, self._settings)
        publisher, consumer = self._connected(process, QUEUES, self._settings.prefetch)
        shift = Shift(registered, database, publisher, consumer, self._settings, tell)
        await shift.run(process.stop)

    async def _participant(self, process: Process) -> None:
        database = Database(self._services, process)
        performers = {}
        for play in self._plays:
            made = participant(play, database, self._lots)
            own = cast("real_participant_database.Database", database) if play.barrier else None
            self._broker.declare(participant_topology(made.name, tuple(made.handlers)))
            performers[participant_queue(made.name)] = Performer(
                made.handlers, own, self._settings, self._told_by_a_participant
            )
        prefetch = self._settings.participant_prefetch
        publisher, consumer = self._connected(process, list(performers), prefetch)
        shift = participant_shift.Shift(
            performers, publisher, consumer, self._settings, self._told_by_a_participant
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(shift.run())
            await process.stop.wait()
            await shift.drain()

    def _connected(
        self, process: Process, queues: Sequence[str], prefetch: int
    ) -> tuple[real_publisher.Publisher, real_consumer.Consumer]:
        """The models in the places of the real ones, whose methods they have."""
        publisher = Publisher(self._broker, process, self._settings.broker_confirm_timeout)
        consumer = Consumer(self._broker, process, queues, prefetch)
        return (
            cast("real_publisher.Publisher", publisher),
            cast("real_consumer.Consumer", consumer),
        )

    def _told(self, fact: Fact) -> None:
        if isinstance(fact, FaultFound):
            self._witness.violate("P7", f"a bug: {fact}")

    def _told_by_a_participant(self, fact: Fact) -> None:
        """A lost connection is a fault of its world; an error of the interpreter is a bug."""
        if isinstance(fact, FaultFound | HandlerFailed) and fact.problem.startswith(BROKEN):
            self._witness.violate("P7", f"a bug: {fact}")

    # the clients

    def _ask(self, group: asyncio.TaskGroup) -> None:
        process = Process("client", self._faults, self._dice, mortal=False)
        publisher = Publisher(self._broker, process, self._settings.broker_confirm_timeout)
        database, accepted = Database(self._engine, process), self._witness.accepted
        made = ACCEPTED - ID_AGE.total_seconds() if self._setup.retention else 0.0
        client = Client(self._engine, database, publisher, self._dice, accepted, made)
        for number in range(self._setup.runs):
            play = self._plays[number % len(self._plays)]
            group.create_task(client.start(play, number, within=STORM * 0.8))
        for name in RUBBISH:
            group.create_task(client.throw_rubbish(name, within=STORM * 0.8))
        if self._setup.hostile:
            sagas = sorted({play.saga.name for play in self._plays})
            by_lot = dice(self._setup.seed, "hostile")
            self._hostile = Hostile(self._engine, database, by_lot, sagas, client.run_id)
            group.create_task(self._hostile.write(self._setup.hostile, within=STORM * 0.8))
        if self._setup.acts:
            operator = Operator(self._engine, database, dice(self._setup.seed, "operator"))
            group.create_task(operator.work(self._setup.acts, within=STORM * 1.5))

    # the end

    async def _settle(self) -> None:
        """Wait until nothing is under way any more."""
        clock = asyncio.get_running_loop()
        until, most = clock.time() + PATIENCE, POINTS + 1000 * self._setup.runs
        while not self._is_settled():
            if clock.time() > until or self._faults.points > most:
                self._witness.violate("P1", "something is under way for ever")
                return
            await asyncio.sleep(1.0)

    def _is_settled(self) -> bool:
        rows = self._engine.rows
        return (
            all(row["wake_at"] is None for row in rows["run"].values())
            and not rows["outbox"]
            and not rows["inbox"]
            and all(queue.is_empty for queue in self._broker.queues.values())
        )

    async def _judge(self) -> Outcome:
        pending_model = {
            run_id
            for (run_id, _), row in self._engine.rows["incident"].items()
            if row["resolved_at"] is None
        }
        for table in KEEP:
            for gone in (DETACHED, DROPPED):
                self._engine.rows[table] |= self._engine.rows[f"{gone} {table}"]
        auditor = Database(self._engine, Process("auditor", self._faults, self._dice))
        async with auditor.transaction() as tx:
            found = await runs.look(cast("Any", tx), set(self._engine.rows["run"]))
        for story in stories(self._engine, self._witness.ledger, self._plays):
            run = found[story.row["run_id"]].run
            self._witness.violations.extend(broken(story, run, pending_model))
        self._witness.violations.extend(unsettled(self._engine))
        self._witness.violations.extend(self._hostile.broken() if self._hostile else ())
        for run_id, version in self._witness.accepted.items():
            began = found[run_id].run.version if run_id in found else None
            if began is None or version not in (None, began):
                self._witness.violate("P1", f"run {run_id} was accepted as {version}, is {began}")
        if not {rubbish(name).message_id for name in RUBBISH} <= set_aside(self._engine):
            self._witness.violate("P7", "what nobody can read was not set aside")
        if len(found) != self._setup.runs:
            self._witness.violate("P1", f"{len(found)} of {self._setup.runs} runs were started")
        statuses = Counter(str(stored.run.status) for stored in found.values())
        statuses["with an incident"] = len(pending_model)
        counts = self._counts + self._witness.counts + self._faults.counts
        return Outcome(
            *(len(found), statuses, counts, self._faults.met),
            *(self._witness.violations, self._witness.digest),
        )


def _guarded(plays: Sequence[Play]) -> set[str]:
    """Every command that is performed behind the barrier."""
    steps = [step for play in plays if play.barrier for step in play.saga.steps.values()]
    orders = [each.order(direction) for each in steps for direction in Direction]
    return {order.command for order in orders if order is not None}
