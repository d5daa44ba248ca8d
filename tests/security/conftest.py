"""Servers behind TLS, with certificates made for the session."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.programs import unprivileged_user
from saga_engine.embedded.server_process import free_port
from tests.kit.certificates import CertificateAuthority, KeyPair
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.servers import running_postgres

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Certificates:
    """What the servers and we have, and what they should not accept."""

    authority: CertificateAuthority
    other_authority: CertificateAuthority
    client: KeyPair
    other_authority_client: KeyPair
    old_client: KeyPair
    server: KeyPair
    expired: KeyPair
    not_yet_valid: KeyPair
    self_signed: KeyPair
    wrong_host: KeyPair


@dataclass
class TlsServer:
    """A server that requires TLS and a client certificate; it shows the files `presented`."""

    server: RabbitMQServer | PostgresServer
    plain_url: str
    presented: KeyPair
    _reload: Callable[[], Awaitable[object]]
    stream_port: int = 0

    async def present(self, pair: KeyPair) -> None:
        """Have the server show another certificate from now on."""
        self.presented.replace_with(pair)
        await self._reload()


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """Where PostgreSQL's own user can read certificates, which pytest's directories are not."""
    with tempfile.TemporaryDirectory(prefix="saga-tls-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def certificates(directory) -> Certificates:
    ours, theirs = (
        CertificateAuthority(directory, "ours"),
        CertificateAuthority(directory, "theirs"),
    )
    return Certificates(
        ours,
        theirs,
        client=ours.issue("client"),
        other_authority_client=theirs.issue("client"),
        old_client=ours.issue("old-client", until=-HOUR),
        server=ours.issue("server"),
        expired=ours.issue("expired", until=-HOUR),
        not_yet_valid=ours.issue("early", from_now=HOUR),
        self_signed=ours.issue("alone", alone=True),
        wrong_host=ours.issue("elsewhere", hosts=("elsewhere.example",)),
    )


@pytest.fixture(scope="session")
async def tls_rabbitmq(certificates, rabbitmq) -> AsyncIterator[TlsServer]:  # noqa: ARG001 - skips
    shows = certificates.authority.issue("rabbitmq")
    port, stream_port = free_port(), free_port()
    configuration = f"""\
listeners.ssl.local = 127.0.0.1:{port}
stream.listeners.ssl.local = 127.0.0.1:{stream_port}
ssl_options.cacertfile = {certificates.authority.ca}
ssl_options.certfile = {shows.certificate}
ssl_options.keyfile = {shows.key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
    async with RabbitMQServer(extra_configuration=configuration) as server:

        async def reread():
            await server.rabbitmqctl("eval", "ssl:clear_pem_cache().")

        url = f"amqp://guest:guest@localhost:{port}/"
        yield TlsServer(server, url, shows, reread, stream_port)


@pytest.fixture(scope="session")
async def tls_postgres(certificates, directory, postgresql_with_tls) -> AsyncIterator[TlsServer]:
    shows = certificates.authority.issue("postgres")
    if account := unprivileged_user():
        for file in shows:
            os.chown(file, account.uid, account.gid)
    rules = directory / "pg_hba.conf"
    demand = "hostssl all all all scram-sha-256 clientcert=verify-ca"
    rules.write_text(f"local all all trust\n{demand}\n")
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(shows.certificate),
        "ssl_key_file": str(shows.key),
        "ssl_ca_file": str(certificates.authority.ca),
        "hba_file": str(rules),
    }
    async with running_postgres(
        use_tcp=True, settings=settings, bin_directory=postgresql_with_tls
    ) as server:

        async def reread():
            os.kill(server.pid, signal.SIGHUP)

        await server.create_database("engine")
        url = server.url.replace("127.0.0.1", "localhost").replace("/postgres", "/engine")
        yield TlsServer(server, url, shows, reread)


def broker_url(secured: TlsServer, ca: Path | None, client: KeyPair | None) -> str:
    """The URL that trusts one authority and shows one certificate."""
    given = {"cafile": ca}
    if client:
        given |= {"certfile": client.certificate, "keyfile": client.key}
    return f"{secured.plain_url.replace('amqp:', 'amqps:')}?{_query(given)}"


def broker_stream_url(secured: TlsServer, ca: Path | None, client: KeyPair | None) -> str:
    """The same for the stream protocol."""
    scheme, port = "rabbitmq-stream+tls", secured.stream_port
    query = broker_url(secured, ca, client).partition("?")[2]
    return f"{scheme}://guest:guest@localhost:{port}/?{query}"


def database_url(secured: TlsServer, ca: Path | None, client: KeyPair | None) -> str:
    """The same for PostgreSQL."""
    given = {"sslmode": "verify-full", "sslrootcert": ca}
    if client:
        given |= {"sslcert": client.certificate, "sslkey": client.key}
    return f"{secured.plain_url}?{_query(given)}"


def _query(given: Mapping[str, object]) -> str:
    return urlencode({name: str(value) for name, value in given.items() if value})
