"""A connection that cannot be opened is explained in a sentence."""

import asyncio
import re
import ssl
import subprocess
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole, ConnectionState
from tests.kit.connections import StateRecorder, open_connection, open_publisher
from tests.kit.messages import make_message
from tests.kit.proxy import running_proxy

TUNE_LIMITS = re.compile(rb"(\x00\x0a\x00\x1e..)....", re.DOTALL)
"""connection.tune up to channel_max, and frame_max."""


async def test_frames_have_a_limit_where_the_broker_sets_none(broker_url):
    async with running_proxy(broker_url) as proxy:
        proxy.from_server.rewrite = lambda data: TUNE_LIMITS.sub(rb"\g<1>\0\0\0\0", data)
        async with open_publisher(proxy.url) as publisher:
            long = make_message("tests.one", b"1" * 200_000)
            assert await publisher.publish([long]) == [PublishOutcome.CONFIRMED]


async def test_wrong_password_is_reported_without_quoting_it(rabbitmq_url):
    url = rabbitmq_url.replace("guest:guest", "guest:hunter2")
    with pytest.raises(ConfigurationError, match="refuses this user or password") as caught:
        async with open_connection(url):
            pass
    assert "hunter2" not in str(caught.value)


async def test_unknown_virtual_host_is_a_configuration_error(rabbitmq_url):
    with pytest.raises(
        ConfigurationError, match=r"^RabbitMQ at [\w.]+:\d+ has no virtual host '.+-missing',"
    ):
        async with open_connection(rabbitmq_url + "-missing"):
            pass


async def test_refused_password_is_raised_without_waiting_for_the_broker(rabbitmq_url):
    url = rabbitmq_url.replace("guest:guest", "guest:hunter2")
    with pytest.raises(ConfigurationError):
        async with SupervisedConnection(
            url, role=ConnectionRole.CONSUME, settings=Settings(), wait_for_broker=True
        ):
            pass


async def test_unreachable_broker_is_unavailable(unused_port):
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{unused_port}"):
        async with open_connection(f"amqp://u:hunter2@127.0.0.1:{unused_port}/"):
            pass


async def test_broker_that_does_not_speak_amqp_is_unavailable():
    async def serve(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable, match="out of reach"):
            async with open_connection(f"amqp://u:p@127.0.0.1:{port}/"):
                pass
    finally:
        server.close()


async def test_silent_broker_times_out():
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable, match="in time"):
            async with open_connection(f"amqp://u:p@127.0.0.1:{port}/", broker_connect_timeout=0.2):
                pass
    finally:
        server.close()


async def test_plain_broker_on_a_tls_url_is_unavailable(broker_url):
    with pytest.raises(BrokerUnavailable, match="does not speak TLS"):
        async with open_connection(broker_url.replace("amqp://", "amqps://")):
            pass


@pytest.mark.parametrize("url", ["amqp://u:hunter2@h:port/", "amqp://u:hunter2@[::1/"])
async def test_invalid_url_is_reported_without_quoting_it(url):
    with pytest.raises(ConfigurationError) as caught:
        async with open_connection(url):
            pass
    assert "hunter2" not in str(caught.value)


async def test_certificate_must_name_the_connected_host(broker_url, certificate):
    """The certificate names `localhost`, so the server is refused by its address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with encrypted(broker_url, context) as port:
        end = urlsplit(broker_url).path + f"?cafile={certificate[0]}"
        with pytest.raises(BrokerUnavailable, match="certificate"):
            async with open_connection(f"amqps://guest:guest@127.0.0.1:{port}{end}"):
                pass
        observer = StateRecorder()
        url = f"amqps://guest:guest@127.0.0.1:{port},127.0.0.1:{port},localhost:{port}{end}"
        async with open_connection(url, observer=observer) as supervised:
            assert supervised.status.state is ConnectionState.CONNECTED
            assert (await supervised.wait_connected()).url.host == "localhost"


@asynccontextmanager
async def encrypted(url, context):
    """The port of a TLS server in front of a broker without TLS."""
    async with running_proxy(url) as proxy:
        plain = urlsplit(proxy.url)

        async def serve(reader, writer):
            from_broker, to_broker = await asyncio.open_connection(plain.hostname, plain.port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, to_broker))
                tasks.create_task(_copy(from_broker, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


async def _copy(source, sink):
    try:
        while data := await source.read(65_536):
            sink.write(data)
    finally:
        sink.close()


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for `localhost`."""
    paths = [str(tmp_path / name) for name in ("certificate.pem", "key.pem")]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", "subjectAltName=DNS:localhost", "-out", paths[0], "-keyout", paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    return paths
