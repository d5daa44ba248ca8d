"""The servers that feeds publish to, each private, with what a process needs to reach it."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import libversion as librdkafka_version

from benchmarks import mock_kafka
from benchmarks.processes import run_process
from saga_engine.embedded.server_process import ServerProcess, free_port
from saga_engine.events.feeds.feed import Sink
from tests.kit.kafka import KafkaServer
from tests.kit.rabbitmq import RabbitMQServer

_RECEIVER_VARIABLE, SIGNING_KEY_VARIABLE = "BENCHMARK_WEBHOOK_URL", "BENCHMARK_WEBHOOK_SECRET"
RECEIVER = os.environ.get(_RECEIVER_VARIABLE, "http://localhost/")
"""Where the feed of this process sends its requests."""

_SIGNING_KEY = "whsec_c2VjcmV0IG9mIHRoZSByZWNlaXZlciwgMzIgYnl0ZXMh"


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkServer:
    """
    A server that takes the messages of feeds.

    Args:
        description: which program it is, for the output.
        pid: its process id.
        address: where its clients connect to.
        stream_port: of RabbitMQ's stream protocol; 0: it does not speak it.
        environment: the environment variables for a process with a feed or a consumer.
    """

    description: str
    pid: int
    address: str
    stream_port: int = 0
    environment: Mapping[str, str]


@asynccontextmanager
async def start_sink_server(sink: Sink) -> AsyncIterator[SinkServer]:
    """Start the server for one kind of sink."""
    start = {Sink.KAFKA: _start_kafka, Sink.WEBHOOK: _start_receiver}.get(sink, _start_rabbitmq)
    async with start() as server:
        yield server


@asynccontextmanager
async def _start_rabbitmq() -> AsyncIterator[SinkServer]:
    async with RabbitMQServer() as rabbit:
        environment = {
            "SAGA_ENGINE_BROKER_URL": rabbit.url,
            "SAGA_ENGINE_BROKER_STREAM_URL": rabbit.stream_url_of("/"),
        }
        yield SinkServer(
            description=f"RabbitMQ {(await rabbit.rabbitmqctl('version')).strip()}",
            pid=rabbit.pid,
            address=rabbit.url,
            stream_port=rabbit.stream_port,
            environment=environment,
        )


@asynccontextmanager
async def _start_kafka() -> AsyncIterator[SinkServer]:
    with TemporaryDirectory() as directory:
        async with KafkaServer(Path(directory) / "kafka") as kafka:
            yield SinkServer(
                description=f"noida-db {version('noida-db')}, a test server of Kafka's protocol",
                pid=kafka.pid,
                address=kafka.servers,
                environment={
                    "SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
                },
            )


@asynccontextmanager
async def start_mock_kafka(topic: str, partitions: int) -> AsyncIterator[SinkServer]:
    """Start a mock cluster of librdkafka with one topic, for consumers."""
    with TemporaryDirectory() as directory:
        found = Path(directory) / "address"
        process = await ServerProcess.start(
            (sys.executable, mock_kafka.__file__, topic, str(partitions), found),
            log_path=Path(directory) / "log",
            environment=os.environ,
        )
        try:
            async for _ in process.poll_while_running():
                if found.exists():
                    break
            yield SinkServer(
                description=f"the mock cluster of librdkafka {librdkafka_version()[0]}",
                pid=process.pid,
                address=found.read_text(),
                environment={"SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS": found.read_text()},
            )
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def _start_receiver() -> AsyncIterator[SinkServer]:
    port = free_port()
    async with run_process("-m", "benchmarks.webhook_receiver", str(port), environment={}) as pid:
        url = f"http://localhost:{port}/"
        yield SinkServer(
            description="a process on this machine that answers 204, without TLS",
            pid=pid,
            address=url,
            environment={
                _RECEIVER_VARIABLE: url,
                SIGNING_KEY_VARIABLE: _SIGNING_KEY,
                "SAGA_ENGINE_WEBHOOK_LOCAL_HTTP": "true",
            },
        )
