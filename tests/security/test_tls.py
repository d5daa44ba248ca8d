"""TLS to RabbitMQ and PostgreSQL: verified, or refused with a sentence that says what to fix."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest

from saga_engine import Client
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from saga_engine.events.feeds.stream_address import stream_addresses
from saga_engine.events.feeds.stream_client import open_client
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.vocabulary import ConnectionRole, ConnectionState
from tests.kit.command_line import environment, saga_engine
from tests.kit.connections import FAST_RECONNECT, StateRecorder
from tests.kit.programs import running_program, wait_until_true
from tests.security.conftest import broker_stream_url, broker_url, database_url

pytestmark = pytest.mark.rabbitmq

PATIENCE = 20.0  # Seconds in which a refusal is said.
SERVER_SHOWS = {
    "expired": "has expired. Renew the server's certificate",
    "not_yet_valid": "is not valid yet",
    "self_signed": "it signed itself",
    "wrong_host": "is for another host",
}

LONG_WRONG_HOST = pytest.param("wrong_host", marks=pytest.mark.long)
"""Shorter tests connect by another name than the one in the certificate."""


@asynccontextmanager
async def shown(secured, certificates, name):
    """A server that shows a bad certificate for the time of the block."""
    await secured.present(getattr(certificates, name))
    try:
        yield
    finally:
        await secured.present(certificates.server)


async def connect_broker(url):
    async with (
        asyncio.timeout(PATIENCE),
        SupervisedConnection(url, role=ConnectionRole.PUBLISH, settings=Settings(broker_url=url)),
    ):
        pass


async def connect_database(url):
    settings = Settings(database_url=url)
    async with asyncio.timeout(PATIENCE), Database(url, settings):
        pass


async def refused_broker(url):
    with pytest.raises(BrokerUnavailable) as caught:
        await connect_broker(url)
    return str(caught.value)


async def refused_database(url):
    with pytest.raises(StoreUnavailable) as caught:
        await connect_database(url)
    return str(caught.value)


async def test_rabbitmq_with_the_right_certificates_is_connected_to(tls_rabbitmq, certificates):
    await connect_broker(broker_url(tls_rabbitmq, certificates.authority.ca, certificates.client))


async def connect_stream(url):
    settings = Settings(broker_stream_url=url)
    (address,) = stream_addresses(settings)
    client = await open_client(address, settings, ConnectionRole.PUBLISH)
    await client.close()


async def test_a_stream_of_rabbitmq_with_the_right_certificates_only_is_connected_to(
    tls_rabbitmq, certificates
):
    ours, theirs = certificates.authority.ca, certificates.other_authority.ca
    await connect_stream(broker_stream_url(tls_rabbitmq, ours, certificates.client))
    with pytest.raises(BrokerUnavailable, match="SAGA_ENGINE_BROKER_STREAM_URL") as refused:
        await connect_stream(broker_stream_url(tls_rabbitmq, theirs, certificates.client))
    assert "comes from an authority that we do not trust" in str(refused.value)
    with pytest.raises(BrokerUnavailable):
        await connect_stream(broker_stream_url(tls_rabbitmq, ours, None))


@pytest.mark.parametrize("name", ["expired", "not_yet_valid", "self_signed", LONG_WRONG_HOST])
async def test_rabbitmq_with_a_bad_certificate_is_refused(tls_rabbitmq, certificates, name):
    url = broker_url(tls_rabbitmq, certificates.authority.ca, certificates.client)
    async with shown(tls_rabbitmq, certificates, name):
        assert SERVER_SHOWS[name] in await refused_broker(url)
    await connect_broker(url)


async def test_rabbitmq_of_another_authority_is_refused(tls_rabbitmq, certificates):
    for ca in (certificates.other_authority.ca, None):
        said = await refused_broker(broker_url(tls_rabbitmq, ca, certificates.client))
        assert (
            "an authority that we do not trust. Name that as cafile in SAGA_ENGINE_BROKER_URL"
            in said
        )


async def test_rabbitmq_refuses_a_client_without_a_valid_certificate(tls_rabbitmq, certificates):
    ca = certificates.authority.ca
    # Its alert may be overtaken by the end of the connection, so there are two ways to say it.
    said = await refused_broker(broker_url(tls_rabbitmq, ca, None))
    assert "a client certificate" in said
    assert "certfile and keyfile" in said
    for bad in (certificates.other_authority_client, certificates.old_client):
        said = await refused_broker(broker_url(tls_rabbitmq, ca, bad))
        assert (
            "refuses the client certificate" in said or "may require a client certificate" in said
        )
        assert "certfile" in said


async def test_rabbitmq_by_another_name_than_its_certificates_is_refused(
    tls_rabbitmq, certificates
):
    url = broker_url(tls_rabbitmq, certificates.authority.ca, certificates.client)
    assert "is for another host" in await refused_broker(url.replace("localhost", "127.0.0.1"))


async def test_a_plaintext_connection_to_the_tls_port_of_rabbitmq_fails(tls_rabbitmq):
    said = await refused_broker(tls_rabbitmq.plain_url)
    assert "If that port is for TLS, say amqps://." in said


async def test_no_program_falls_back_to_plaintext_with_rabbitmq(rabbitmq_url, certificates):
    url = f"{rabbitmq_url.replace('amqp:', 'amqps:')}?cafile={certificates.authority.ca}"
    assert "does not speak TLS on this port" in await refused_broker(url)


async def test_postgresql_with_the_right_certificates_is_connected_to(tls_postgres, certificates):
    url = database_url(tls_postgres, certificates.authority.ca, certificates.client)
    await upgrade(url)
    await connect_database(url)


@pytest.mark.parametrize("name", ["expired", "self_signed", LONG_WRONG_HOST])
async def test_postgresql_with_a_bad_certificate_is_refused(tls_postgres, certificates, name):
    url = database_url(tls_postgres, certificates.authority.ca, certificates.client)
    await upgrade(url)

    async def says(words):
        try:
            await connect_database(url)
        except StoreUnavailable as error:
            return words in str(error)
        return not words

    # PostgreSQL reads its files again some time after a reload.
    async with shown(tls_postgres, certificates, name):
        await wait_until_true(lambda: says(SERVER_SHOWS[name]))
    await wait_until_true(lambda: says(""))


async def test_postgresql_of_another_authority_is_refused(tls_postgres, certificates):
    for ca in (certificates.other_authority.ca, None):
        said = await refused_database(database_url(tls_postgres, ca, certificates.client))
        assert (
            "an authority that we do not trust. Name that as sslrootcert in the database URL"
            in said
        )


async def test_postgresql_refuses_a_client_without_a_valid_certificate(tls_postgres, certificates):
    ca = certificates.authority.ca
    said = await refused_database(database_url(tls_postgres, ca, None))
    assert (
        "It may demand TLS (sslmode=verify-full in the database URL), a client certificate" in said
    )
    for bad in (certificates.other_authority_client, certificates.old_client):
        said = await refused_database(database_url(tls_postgres, ca, bad))
        assert "cut the connection. If it always does" in said


async def test_postgresql_by_another_name_than_its_certificates_is_refused(
    tls_postgres, certificates
):
    url = database_url(tls_postgres, certificates.authority.ca, certificates.client)
    assert "is for another host" in await refused_database(url.replace("localhost", "127.0.0.1"))


async def test_postgresql_that_demands_tls_refuses_a_url_without(tls_postgres):
    said = await refused_database(tls_postgres.plain_url)
    assert "It may demand TLS (sslmode=verify-full" in said


async def test_no_program_falls_back_to_plaintext_with_postgresql(certificates):
    async def no_tls(reader, writer):
        assert await reader.readexactly(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"  # SSLRequest
        writer.write(b"N")
        assert await reader.read() == b""
        writer.close()

    async with await asyncio.start_server(no_tls, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        url = f"postgresql+asyncpg://u:hunter2@localhost:{port}/x?sslmode=verify-full"
        said = await refused_database(f"{url}&sslrootcert={certificates.authority.ca}")
    assert "has no TLS switched on" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "query",
    [
        *("sslmode=require", "sslmode=prefer", "sslmode=allow", "sslmode=verify-ca"),
        *("sslmode=nonsense", "ssl=verify-full", "ssl=1", "sslrootcert=/ca.pem", "SSLMODE=disable"),
        *("sslmode=disable&sslcert=/c.pem", "sslmode=verify-full&sslkey=/k.pem"),
        *("sslmode=verify-full&sslrootcert=/no/such.pem", "sslmode=verify-full&sslcrl=/x"),
    ],
)
async def test_a_database_url_with_less_than_verified_tls_is_refused(query):
    url = f"postgresql+asyncpg://u:hunter2@localhost/x?{query}"
    with pytest.raises(ConfigurationError) as caught:
        await connect_database(url)
    assert "hunter2" not in str(caught.value)


WEAK_URLS = [
    *("amqps://h/?no_verify_ssl=1", "amqps://h/?no_verify_ssl=true", "amqps://h/?verify_ssl=0"),
    *("amqps://h/?%6eo_verify_ssl=1", "amqps://h/?verify=verify_none", "amqp://h/?cafile=/ca"),
    *("amqps://h/?cacertfile=/ca", "amqps://h/?cadata=AA==", "amqps://h/?keyfile=/k.pem"),
    *("amqps://h/?cafile=/no/such.pem", "amqps://h/?certfile=/etc/passwd"),
]


@pytest.mark.parametrize("url", WEAK_URLS)
async def test_a_broker_url_with_less_than_verified_tls_is_refused(url):
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_URL"):
        await connect_broker(url)


@pytest.mark.parametrize("url", [*WEAK_URLS, "amqps://one,h:5671/?no_verify_ssl=1"])
async def test_a_broker_url_from_code_is_checked_too(url):
    unseen = Settings()
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_URL"):
        async with (
            asyncio.timeout(PATIENCE),
            SupervisedConnection(url, role=ConnectionRole.PUBLISH, settings=unseen),
        ):
            pass
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_URL"):
        async with asyncio.timeout(PATIENCE), Client(url, settings=unseen):
            pass


async def test_a_database_url_from_code_is_checked_too():
    for query in ("sslmode=require", "ssl=1", "sslmode=verify-full&sslrootcert=/no/such.pem"):
        with pytest.raises(ConfigurationError):
            async with Database(f"postgresql+asyncpg://u@localhost/x?{query}", Settings()):
                pass


async def test_runs_complete_over_tls_to_both_servers(
    tls_rabbitmq, tls_postgres, certificates, tmp_path
):
    settings: dict[str, Any] = {
        "broker_url": broker_url(tls_rabbitmq, certificates.authority.ca, certificates.client),
        "database_url": database_url(tls_postgres, certificates.authority.ca, certificates.client),
        "http_port": "0",
    }
    surroundings = environment(**settings) | {"SHOP_DATABASE_URL": settings["database_url"]}
    migrated = await saga_engine("migrate", **settings)
    assert migrated.exit_code == 0, migrated
    async with (
        running_program(
            *("worker", "tests.security.buy_saga"),
            environment=surroundings,
            log=tmp_path / "worker",
        ) as worker,
        running_program(
            *("participant", "tests.security.stock", "tests.security.payments"),
            environment=surroundings,
            log=tmp_path / "participant",
        ) as participant,
    ):
        for program in (worker, participant):
            await wait_until_true(program.is_ready)
        ran = await saga_engine("start", "buy", "--input", "{}", "--wait", "--json", **settings)
    assert (ran.exit_code, ran.json["status"]) == (0, "completed")


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "tests.security.buy_saga"),
        ("participant", "tests.security.stock"),
        ("start", "buy", "--input", "{}"),
    ],
)
async def test_every_program_reports_an_untrusted_rabbitmq_in_one_sentence(
    tls_rabbitmq, migrated_url, certificates, arguments
):
    url = broker_url(tls_rabbitmq, certificates.other_authority.ca, certificates.client)
    ran = await saga_engine(*arguments, broker_url=url, database_url=migrated_url)
    assert ran.exit_code == 5
    assert "Traceback" not in ran.err
    assert "saga-engine: RabbitMQ at localhost:" in ran.err.splitlines()[-1]
    assert "an authority that we do not trust" in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [("worker", "tests.security.buy_saga"), ("list",), ("migrate",)]
)
async def test_every_program_reports_an_untrusted_postgresql_in_one_sentence(
    tls_postgres, rabbitmq_url, certificates, arguments
):
    url = database_url(tls_postgres, certificates.other_authority.ca, certificates.client)
    ran = await saga_engine(*arguments, broker_url=rabbitmq_url, database_url=url)
    assert ran.exit_code == 5
    assert "Traceback" not in ran.err
    assert "an authority that we do not trust" in ran.err.splitlines()[-1]


async def test_an_expired_certificate_is_reported_until_it_is_renewed(tls_rabbitmq, certificates):
    url = broker_url(tls_rabbitmq, certificates.authority.ca, certificates.client)
    observed = StateRecorder()
    settings = Settings(**(FAST_RECONNECT | {"broker_url": url}))
    async with SupervisedConnection(
        url, role=ConnectionRole.CONSUME, settings=settings, on_status=observed
    ):
        await observed.wait_for(lambda state: state.state is ConnectionState.CONNECTED)
        async with shown(tls_rabbitmq, certificates, "expired"):
            await tls_rabbitmq.server.rabbitmqctl("close_all_connections", "test")
            await observed.wait_for(lambda state: SERVER_SHOWS["expired"] in state.problem)
        await observed.wait_for(
            lambda state: state.state is ConnectionState.CONNECTED and state.generation == 2
        )


async def test_the_client_certificate_is_read_for_each_connection(tls_rabbitmq, certificates):
    mine = certificates.authority.issue("mine")
    mine.replace_with(certificates.client)
    url = broker_url(tls_rabbitmq, certificates.authority.ca, mine)
    observed = StateRecorder()
    settings = Settings(**(FAST_RECONNECT | {"broker_url": url}))
    async with SupervisedConnection(
        url, role=ConnectionRole.CONSUME, settings=settings, on_status=observed
    ):
        mine.replace_with(certificates.old_client)
        await tls_rabbitmq.server.rabbitmqctl("close_all_connections", "test")
        await observed.wait_for(lambda state: "certfile" in state.problem)
        mine.replace_with(certificates.client)
        await observed.wait_for(
            lambda state: state.state is ConnectionState.CONNECTED and state.generation == 2
        )


async def test_an_unknown_parameter_is_refused():
    url = "postgresql+asyncpg://u:hunter2@localhost/x?aplication_name=x"
    with pytest.raises(ConfigurationError, match="parameter aplication_name"):
        await connect_database(url)
