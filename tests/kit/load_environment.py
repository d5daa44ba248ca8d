"""Programs under load: starts runs, and reads the results from the database."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from aiormq.exceptions import ChannelNotFoundEntity
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.amqp.publisher import Publisher
from saga_engine.embedded.server_process import free_port
from saga_engine.identifiers import uuid7
from saga_engine.protocol.request import StartRequest, encode_request
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REPLIES, REQUESTS, participant_queue
from saga_engine.vocabulary import ConnectionRole, Json
from tests.kit.connections import open_connection, raw_channel
from tests.kit.programs import ROOT, is_ready, running_program, sleep, wait_until_true

BATCH_SIZE = 1000  # Starts in one write.
COMMAND_QUEUES = tuple(map(participant_queue, ("inventory", "payments", "orders")))


class LoadEnvironment:
    """The programs of one load test, and the runs that it has requested."""

    def __init__(self, owned, database_url, broker_url, publisher, directory, settings):
        self.requested: Counter[str] = Counter()
        self.clock = asyncio.get_running_loop().time
        self.environment = {
            "SAGA_ENGINE_DATABASE_URL": database_url,
            "SAGA_ENGINE_BROKER_URL": broker_url,
            "PLACE_ORDER_DATABASE_URL": database_url,
            "SAGA_ENGINE_LOG_LEVEL": "warning",
            **settings,
        }
        self.broker_url = broker_url
        self.directory = directory
        self.engine = create_async_engine(database_url)
        self._owned, self._publisher = owned, publisher

    async def run_program(self, *arguments, name, environment=None, cwd=ROOT):
        """Start a program that runs until the end of the load test."""
        port = free_port()
        running = await self._owned.enter_async_context(
            running_program(
                *arguments,
                *("--port", str(port)),
                environment={**self.environment, **(environment or {})},
                log=self.directory / name,
                cwd=cwd,
            )
        )
        await wait_until_true(lambda: is_ready(port))
        return running

    async def start_worker(self, module="tests.load.sagas", name="worker"):
        return await self.run_program("worker", module, name=name)

    async def start_participant(
        self, module="tests.load.services", name="participant", **environment
    ):
        return await self.run_program("participant", module, name=name, environment=environment)

    async def start_runs(self, number, *, saga="place-order", card="ok"):
        """Request runs in batches, as fast as the broker confirms them."""
        for first in range(0, number, BATCH_SIZE):
            messages = []
            for _ in range(min(BATCH_SIZE, number - first)):
                order: dict[str, Json] = {
                    "order_id": f"{saga}-{self.requested[saga]}",
                    "sku": "A1",
                    "quantity": 1,
                }
                order |= {"amount": "9.90", "card": card}
                self.requested[saga] += 1
                messages.append(
                    encode_request(StartRequest(run_id=uuid7(), saga=saga, input=order))
                )
            while messages:
                outcomes = await self._publisher.publish(messages)
                pairs = zip(messages, outcomes, strict=True)
                messages = [each for each, outcome in pairs if outcome != "confirmed"]

    async def ended_by_status(self, saga="place-order"):
        """The number of finished runs of a saga, by status."""
        return Counter(
            dict(
                await self.query(
                    "SELECT r.status, count(*) FROM saga_engine.run AS r JOIN"
                    " saga_engine.definition AS d ON d.id = r.definition_id"
                    " WHERE finished_at IS NOT NULL AND d.name = :saga GROUP BY r.status",
                    saga=saga,
                )
            )
        )

    async def wait_for_ended(self, saga, number, *, patience=60.0):
        """Wait until a number of runs of a saga have finished."""

        async def have_ended():
            return (await self.ended_by_status(saga)).total() >= number

        await wait_until_true(have_ended, patience=patience, interval=0.2)

    async def wait_for_all_ended(self, *, patience=60.0):
        """Wait until every requested run has finished."""

        for saga, number in self.requested.items():
            await self.wait_for_ended(saga, number, patience=patience)

    async def query(self, statement, **arguments):
        """Run a query on the engine's database, and return the rows."""
        async with self.engine.connect() as connection:
            return (await connection.execute(text(statement), arguments)).all()

    async def queue_depths(self, *queues):
        """The number of ready messages in each queue; 0 for a queue that does not exist."""
        found = {}
        for queue in queues:
            with suppress(ChannelNotFoundEntity):
                async with raw_channel(self.broker_url) as channel:
                    found[queue] = (await channel.queue_declare(queue, passive=True)).message_count
        return found

    async def extra_attempts(self):
        """The number of attempts beyond the first, over all runs and steps."""
        [(extra,)] = await self.query(
            "SELECT coalesce(sum(n - 1), 0)::integer FROM (SELECT count(*) AS n"
            " FROM saga_engine.journal, jsonb_array_elements(events) AS event"
            " WHERE event ->> 'type' = 'attempt_started' GROUP BY"
            " run_id, event #>> '{data,step}', event #>> '{data,direction}') AS sent"
        )
        return extra

    async def longest_wait(self):
        """The longest time in seconds between two events of one run."""
        [(longest,)] = await self.query(
            "SELECT extract(epoch FROM max(gap))::float8"
            " FROM (SELECT recorded_at - lag(recorded_at)"
            " OVER (PARTITION BY run_id ORDER BY revision) AS gap FROM saga_engine.journal) AS gaps"
        )
        return longest


@asynccontextmanager
async def load_environment(database_url, broker_url, directory, **settings):
    """A load test: the programs end with the block."""
    async with AsyncExitStack() as owned:
        # Declares the queues of the engine, so that starts wait there for a worker.
        connection = await owned.enter_async_context(
            open_connection(broker_url, ConnectionRole.PUBLISH, topology=ENGINE_TOPOLOGY)
        )
        environment = LoadEnvironment(
            owned, database_url, broker_url, Publisher(connection), directory, settings
        )
        owned.push_async_callback(environment.engine.dispose)
        yield environment


class PeakMonitor:
    """Polls the memory of programs and the depth of queues, and keeps the peaks."""

    def __init__(self, environment: LoadEnvironment, **programs):
        self.peaks: Counter[str] = Counter()
        self._environment, self._programs = environment, programs

    async def __aenter__(self):
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._task = self._tasks.create_task(self._poll())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await self._tasks.__aexit__(None, None, None)

    async def _poll(self):
        while True:
            for name, running in self._programs.items():
                self._record_peak(f"{name}, MB", peak_memory(running.pid))
            depths = await self._environment.queue_depths(REQUESTS, REPLIES, *COMMAND_QUEUES)
            for queue, depth in depths.items():
                self._record_peak(queue, depth)
            [(waiting,)] = await self._environment.query(
                "SELECT count(*) FROM saga_engine.pending_request WHERE kind = 'start'"
            )
            self._record_peak("starts waiting", waiting)
            await sleep(0.5)

    def _record_peak(self, name, number):
        self.peaks[name] = max(self.peaks[name], number)


def peak_memory(pid):
    """The peak memory of a process in MB (VmHWM, proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024
