"""
One simulated world: workers, participants and clients over models of their servers.

The code of the worker, the participant kit and the decider is the real one. A world has two phases.
In the fault phase, clients start runs and faults are injected. After it, nothing fails any more,
every run must finish without help, and the promises are checked.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from saga_engine.errors import SagaEngineError
from saga_engine.participant.dispatcher import Dispatcher
from saga_engine.participant.executor import Executor
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.protocol.topology import (
    ENGINE_TOPOLOGY,
    REPLIES,
    REQUESTS,
    engine_topology,
    participant_queue,
    participant_topology,
)
from saga_engine.telemetry.events import Emitter, HandlerFailed, InternalErrorCaught, TelemetryEvent
from saga_engine.worker.loops import WorkerLoops, register_sagas
from simulation import virtual_time
from simulation.broker_model import BrokerModel, PublisherModel
from simulation.client import Client
from simulation.config import SimulationConfig, SimulationResult
from simulation.consumer_model import ConsumedQueues, ConsumerModel
from simulation.event_checks import FEED_QUEUE, FEED_QUEUE_TOPOLOGY, EventChecks
from simulation.faults import FaultInjector, seeded_random
from simulation.final_checks import FinalChecks
from simulation.held_runs import HeldRuns, JournalFolds
from simulation.hostile_rows import HostileWriter
from simulation.memory_client import MemoryDatabaseClient
from simulation.memory_database import MemoryDatabase
from simulation.memory_store import MemoryStore
from simulation.monitor import Monitor
from simulation.operator import Operator
from simulation.partition_model import MAX_RUN_ID_AGE
from simulation.process import SimulatedProcess
from simulation.projection_operator import ProjectionOperator
from simulation.projector import SimulatedProjector
from simulation.rollout import Rollout
from simulation.services_model import ServicesDatabase, ServicesTransaction
from simulation.workload import SampledOutcomes, Workload, make_participant

ProcessMain = Callable[[SimulatedProcess], Awaitable[None]]

RUN_ID_ACCEPTED_S = 120.0
"""Seconds until the clients' run ids are too old to be accepted, in a world with retention."""

FULL_ROLLOUT_S, RETENTION_TAIL_S = 200.0, 60.0
"""Seconds until such a world loads all versions, and for which it then drops partitions."""

FAULT_PHASE_S = 30.0
"""Seconds in which runs are started and faults are injected."""

QUIESCENCE_TIMEOUT_S, MAX_FAULT_POINTS = 1800.0, 50_000
"""Seconds without faults, and points, after which an unfinished world is stuck."""

MALFORMED_MESSAGE_EXCHANGES = (REPLIES, REQUESTS)
"""The exchanges to which clients send malformed messages."""

INTERPRETER_ERRORS = ("TypeError", "AttributeError", "NameError", "KeyError")
"""Errors that no handler of a simulation raises; a planted bug that is out of date does."""


def simulate(
    config: SimulationConfig, workloads: Sequence[Workload], faults: FaultInjector | None = None
) -> SimulationResult:
    """
    Run one simulation.

    Args:
        faults: the faults to inject; by default they are drawn from the seed.
    """
    if faults is None:
        rng = seeded_random(config.seed, "faults")
        faults = FaultInjector(rng, interval=config.fault_interval, freezes=config.freezes)
    return virtual_time.run(World(config, workloads, faults).run())


class World:
    """One world; `run` may be called once."""

    def __init__(
        self, config: SimulationConfig, workloads: Sequence[Workload], faults: FaultInjector
    ) -> None:
        self._config = config
        self._settings = config.settings
        rollout_s = FULL_ROLLOUT_S if config.retention else FAULT_PHASE_S * 0.9
        self._rollout = Rollout(workloads, rollout_s, config.reply_queues)
        self._workloads = workloads
        self._faults = faults
        self._rng = seeded_random(config.seed, "network")
        self._engine_db = MemoryDatabase()
        self._services_db = MemoryDatabase()
        self._broker = BrokerModel(self._rng)
        self._broker.declare(ENGINE_TOPOLOGY)
        self._broker.declare(FEED_QUEUE_TOPOLOGY)
        self._sampled_outcomes = SampledOutcomes(
            config.seed, forgets_rejections=not config.operator_actions
        )
        self._monitor = Monitor(
            self._engine_db, self._services_db, self._broker, _barrier_commands(workloads)
        )
        self._journal_folds = JournalFolds(self._engine_db)
        self._event_checks = EventChecks(
            self._services_db, self._engine_db, self._broker, config.projectors
        )
        self._counts: Counter[str] = Counter()
        self._task_group = asyncio.TaskGroup()
        self._processes: dict[str, SimulatedProcess] = {}
        self._finished = False
        operator = SimulatedProcess("operator", faults, self._rng, can_crash=False)
        self._projection_operator = ProjectionOperator(
            MemoryDatabaseClient(self._services_db, operator, ServicesTransaction),
            begins_faulty=config.faulty_projection,
        )
        self._hostile: HostileWriter | None = None

    async def run(self) -> SimulationResult:
        """Run both phases and check the promises."""
        async with self._task_group:
            for number in range(self._config.workers):
                self._spawn(f"worker {number}", partial(self._worker, number))
            self._task_group.create_task(self._roll_out())
            for number in range(self._config.participants):
                self._spawn(f"participant {number}", self._participant)
            for number in range(self._config.projectors):
                self._spawn(f"projector {number}", self._projector)
            if self._config.faulty_projection:
                self._task_group.create_task(
                    self._projection_operator.run(self._restart_projectors, lambda: self._finished)
                )
            async with asyncio.TaskGroup() as clients:
                self._start_clients(clients)
                await asyncio.sleep(FAULT_PHASE_S)
                self._faults.disable()
                self._sampled_outcomes.disable()
                tail = FULL_ROLLOUT_S + RETENTION_TAIL_S - FAULT_PHASE_S
                await asyncio.sleep(tail if self._config.retention else 0.0)
            await self._wait_until_quiescent()
            self._finished = True
            for process in self._processes.values():
                process.stop.set()
        return await self._check()

    # processes

    def _spawn(self, name: str, main: ProcessMain) -> None:
        self._task_group.create_task(self._supervise(name, main))

    async def _supervise(self, name: str, main: ProcessMain) -> None:
        """Start a process, and restart it after each crash or shutdown."""
        while not self._finished:
            process = self._processes[name] = SimulatedProcess(name, self._faults, self._rng)
            task = self._task_group.create_task(self._run_process(process, main))
            process.attach_task(task)
            await asyncio.wait([task])
            self._counts["stops" if process.alive else "crashes"] += 1
            await asyncio.sleep(process.downtime)

    async def _roll_out(self) -> None:
        """Restart the workers one by one at each stage of the rollout."""
        event_loop = asyncio.get_running_loop()
        for at in self._rollout.restart_times:
            await asyncio.sleep(at - event_loop.time())
            for number in range(self._config.workers):
                self._processes[f"worker {number}"].stop.set()
                await asyncio.sleep(self._rng.random())

    def _restart_projectors(self) -> None:
        for number in range(self._config.projectors):
            self._processes[f"projector {number}"].stop.set()

    async def _run_process(self, process: SimulatedProcess, main: ProcessMain) -> None:
        try:
            await main(process)
            if not process.stop.is_set():
                self._monitor.record_violation("P7", f"{process.name} ended without a shutdown")
        except SagaEngineError:
            process.downtime = 1.0  # It could not start; the supervisor restarts it.
        except Exception as error:  # noqa: BLE001 - any other error is a violation
            self._monitor.record_violation("P7", f"{process.name} ended: {error!r}")
        finally:
            process.close()

    async def _worker(self, number: int, process: SimulatedProcess) -> None:
        now = asyncio.get_running_loop().time()
        settings = self._settings.model_copy(
            update={"reply_queues": self._rollout.reply_queues_at(now)}
        )
        workloads = self._rollout.workloads_for(number, now)
        store = MemoryStore(self._engine_db, process, self._settings.database_lock_timeout)
        held_runs = HeldRuns(self._journal_folds, self._monitor, process)
        emitter = Emitter(self._on_worker_event, held_runs.on_event)
        sagas = [workload.saga for workload in workloads]
        registered = await register_sagas(store, sagas, NO_ENCRYPTION, emitter, settings)
        self._broker.declare(engine_topology(settings.reply_queues))
        publisher = PublisherModel(self._broker, process, settings.broker_confirm_timeout)
        consumer = ConsumerModel(self._broker, process, ConsumedQueues.of_worker(settings))
        worker_loops = WorkerLoops(registered, store, publisher, consumer, settings, emitter)
        held_runs.watch(worker_loops)
        await worker_loops.run(process.stop)

    async def _participant(self, process: SimulatedProcess) -> None:
        database = ServicesDatabase(self._services_db, process, ServicesTransaction)
        executors = {}
        for workload in self._workloads:
            definition = make_participant(
                workload,
                database,
                self._sampled_outcomes,
                appends_events=self._config.projectors > 0,
            )
            self._broker.declare(participant_topology(definition.name, tuple(definition.handlers)))
            barrier = database if workload.barrier else None
            emit = self._on_participant_event
            executor = Executor(definition.handlers, barrier, self._settings, emit)
            if barrier and process.name.endswith("1"):  # and other processes not, at the same time
                executor.enable_batches(barrier)
            executors[participant_queue(definition.name)] = executor
        queues = ConsumedQueues(
            names=tuple(executors), prefetch=self._settings.participant_prefetch
        )
        publisher = PublisherModel(self._broker, process, self._settings.broker_confirm_timeout)
        consumer = ConsumerModel(self._broker, process, queues)
        dispatcher = Dispatcher(
            executors, publisher, consumer, self._settings, self._on_participant_event
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.run())
            await process.stop.wait()
            await dispatcher.stop()

    async def _projector(self, process: SimulatedProcess) -> None:
        timeout = self._settings.broker_confirm_timeout
        projector = SimulatedProjector(
            projection=self._projection_operator.deployed,
            services=MemoryDatabaseClient(self._services_db, process, ServicesTransaction),
            engine=MemoryStore(self._engine_db, process),
            publisher=PublisherModel(self._broker, process, timeout),
            settings=self._settings,
            emit=self._on_worker_event,
            owner=f"{process.name} since {asyncio.get_running_loop().time()}",
        )
        await projector.run(process.stop)

    def _on_worker_event(self, event: TelemetryEvent) -> None:
        if isinstance(event, InternalErrorCaught):
            self._monitor.record_violation("P7", f"a bug: {event}")

    def _on_participant_event(self, event: TelemetryEvent) -> None:
        """A lost connection is an injected fault; an error of the interpreter is a bug."""
        if isinstance(event, InternalErrorCaught | HandlerFailed) and event.problem.startswith(
            INTERPRETER_ERRORS
        ):
            self._monitor.record_violation("P7", f"a bug: {event}")

    # clients

    def _start_clients(self, group: asyncio.TaskGroup) -> None:
        process = SimulatedProcess("client", self._faults, self._rng, can_crash=False)
        publisher = PublisherModel(self._broker, process, self._settings.broker_confirm_timeout)
        store = MemoryStore(self._engine_db, process)
        accepted = self._monitor.accepted_versions
        run_ids_made_at = (
            RUN_ID_ACCEPTED_S - MAX_RUN_ID_AGE.total_seconds() if self._config.retention else 0.0
        )
        client = Client(self._engine_db, store, publisher, self._rng, accepted, run_ids_made_at)
        for number in range(self._config.runs):
            workload = self._workloads[number % len(self._workloads)]
            group.create_task(client.start(workload, number, within=FAULT_PHASE_S * 0.8))
        for name in MALFORMED_MESSAGE_EXCHANGES:
            group.create_task(client.send_malformed(name, within=FAULT_PHASE_S * 0.8))
        if self._config.hostile_rows:
            sagas = sorted({workload.saga.name for workload in self._workloads})
            rng = seeded_random(self._config.seed, "hostile")
            self._hostile = HostileWriter(self._engine_db, store, rng, sagas, client.make_run_id)
            group.create_task(
                self._hostile.write(self._config.hostile_rows, within=FAULT_PHASE_S * 0.8)
            )
        if self._config.operator_actions:
            operator = Operator(
                self._engine_db, store, seeded_random(self._config.seed, "operator")
            )
            group.create_task(
                operator.run(self._config.operator_actions, within=FAULT_PHASE_S * 1.5)
            )

    # the end

    async def _wait_until_quiescent(self) -> None:
        """Wait until nothing is in flight."""
        event_loop = asyncio.get_running_loop()
        deadline = event_loop.time() + QUIESCENCE_TIMEOUT_S
        max_points = MAX_FAULT_POINTS + 1000 * self._config.runs
        while not self._is_quiescent():
            if event_loop.time() > deadline or self._faults.points_passed > max_points:
                self._monitor.record_violation("P1", "something stays in flight")
                return
            await asyncio.sleep(1.0)

    def _is_quiescent(self) -> bool:
        rows = self._engine_db.rows
        return (
            all(row["wake_at"] is None for row in rows["run"].values())
            and not rows["outbox"]
            and not rows["pending_request"]
            and all(q.is_empty for name, q in self._broker.queues.items() if name != FEED_QUEUE)
            and not self._event_checks.readers_behind()
        )

    async def _check(self) -> SimulationResult:
        monitor = self._monitor
        checks = FinalChecks(self._engine_db, monitor, self._workloads)
        reader = SimulatedProcess("auditor", self._faults, self._rng)
        stored_runs = await checks.read_runs(reader)
        checks.check_runs(stored_runs, expected=self._config.runs)
        checks.check_dead_letters(MALFORMED_MESSAGE_EXCHANGES)
        monitor.violations.extend(self._hostile.violations() if self._hostile else ())
        monitor.violations.extend(self._event_checks.violations())
        statuses = Counter(str(stored.run.status) for stored in stored_runs.values())
        statuses["with an incident"] = len(checks.open_incident_runs())
        return SimulationResult(
            runs=len(stored_runs),
            statuses=statuses,
            counts=self._counts + monitor.counts + self._faults.counts,
            faults=self._faults.injected,
            violations=monitor.violations,
            digest=monitor.digest,
        )


def _barrier_commands(workloads: Sequence[Workload]) -> set[str]:
    """Every command that is handled behind the barrier."""
    steps = [
        step for workload in workloads if workload.barrier for step in workload.saga.steps.values()
    ]
    return {spec.command for step in steps for spec in step.command_specs}
