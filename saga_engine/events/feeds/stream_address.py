"""Where RabbitMQ speaks the stream protocol: one address for each node of the URL."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from saga_engine import tls
from saga_engine.amqp.url import split_hosts, vhost_of
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings

PORT, TLS_PORT = 5552, 5551
"""RabbitMQ's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAddress:
    """
    One node.

    Args:
        host: its name or address.
        port: of its stream protocol.
        username: empty when the certificate names the user.
        password: of the user.
        vhost: the virtual host.
        uses_certificate: the client certificate names the user (`auth=external`).
        tls_files: None: without TLS.
    """

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    vhost: str
    uses_certificate: bool
    tls_files: tls.TlsFiles | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}, virtual host {self.vhost}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """
        Read the certificates.

        Raises:
            ConfigurationError: a file cannot be used.
        """
        return tls.create_ssl_context(self.tls_files) if self.tls_files else None


def stream_addresses(settings: Settings) -> tuple[StreamAddress, ...]:
    """
    Return the nodes of `broker_stream_url`, or those of `broker_url` with the usual port.

    Raises:
        ConfigurationError: neither is set, or the URL cannot be read.
    """
    own = settings.broker_stream_url
    url = own.get_secret_value() if own else settings.require_broker_url()
    try:
        return tuple(_address(each, keeps_port=own is not None) for each in split_hosts(url))
    except ValueError:
        name = "BROKER_STREAM_URL" if own else "BROKER_URL"
        raise ConfigurationError(
            f"SAGA_ENGINE_{name} is not a valid URL. Set SAGA_ENGINE_BROKER_STREAM_URL, for"
            f" example, to rabbitmq-stream://user:password@host:{PORT}/"
        ) from None


def _address(url: str, *, keeps_port: bool) -> StreamAddress:
    parts = urlsplit(url)
    tls_files = tls.broker_tls_files(url)
    usual_port = TLS_PORT if tls_files else PORT
    vhost = vhost_of(url)
    if not vhost.isascii():
        raise ConfigurationError(
            f"The virtual host {vhost!r} has letters that the stream protocol's client cannot send."
            " Use one whose name is ASCII."
        )
    return StreamAddress(
        host=parts.hostname or "localhost",
        port=(parts.port if keeps_port else None) or usual_port,
        username=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=vhost,
        uses_certificate=dict(parse_qsl(parts.query)).get("auth") == "external",
        tls_files=tls_files,
    )
