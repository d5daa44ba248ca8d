"""
The URL of a database, parsed: what the driver connects to, and an address to show.

    postgresql+asyncpg://user:password@host:5432/database?sslmode=verify-full
    postgresql+asyncpg://user:password@/database?host=one:5432&host=two:5432

It has the form of SQLAlchemy's URLs and is parsed in the same way: users write one URL for both.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import asyncpg

from saga_engine import tls
from saga_engine.errors import ConfigurationError

PORT_MAX = 65_535
READ_WRITE = "read-write"
DRIVER = "postgresql+asyncpg"

TLS_PARAMETERS = (
    tls.SSLMODE,
    tls.DATABASE_PARAMETERS.ca,
    tls.DATABASE_PARAMETERS.certificate,
    tls.DATABASE_PARAMETERS.key,
)
"""Parameters of a URL that `tls` reads."""

NUMERIC_PARAMETERS: Mapping[str, type[int] | type[float]] = {
    "timeout": float,
    "command_timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "prepared_statement_cache_size": int,
}
"""Parameters of a URL that are numbers; the last one is SQLAlchemy's, the others asyncpg's."""

_OBJECT_PARAMETERS = (
    "loop",
    "connection_class",
    "record_class",
    "server_settings",
    "direct_tls",
    "dsn",
)
"""Parameters of asyncpg that a URL cannot have."""

_URL = re.compile(
    r"""
    (?P<driver>[\w+]+)://
    ( (?P<user>[^:/]*) (:(?P<password>[^@]*))? @ )?
    ( \[(?P<ipv6>[^/?]+)\] | (?P<host>[^/:?]+) )?
    ( :(?P<port>[^/?]*) )?
    ( /(?P<database>[^?]*) )?
    ( \?(?P<query>.*) )?
    """,
    re.VERBOSE,
)
_HOST_AND_PORT = re.compile(r"([a-zA-Z0-9.-]*)(?::(\d*))?")

_INVALID_URL = (
    "The database URL cannot be read."
    " It has the form postgresql+asyncpg://user:password@host:5432/database"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """
    The parts of a URL.

    `hosts` and `ports` have the same length. A port of None is the driver's default, and without
    hosts the driver uses its default hosts. `query` has the parameters other than hosts and TLS.
    """

    user: str | None
    password: str | None = field(repr=False)
    hosts: Sequence[str]
    ports: Sequence[int | None]
    database: str | None
    query: Mapping[str, str] = field(repr=False)

    @property
    def without_password(self) -> str:
        """User, hosts and database, without the password."""
        hosts = list(self.hosts) or ["localhost"]
        ports = list(self.ports) or [None]
        if len(hosts) == 1:
            addresses = f"{hosts[0]}:{ports[0] or 5432}"
        else:
            addresses = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
        return f"{self.user or ''}@{addresses}/{self.database or ''}"

    def connect_arguments(self) -> dict[str, Any]:
        """
        Return the arguments of `asyncpg.connect`, without the TLS context.

        With several hosts they select the one that accepts writes.

        Raises:
            ConfigurationError: a parameter is unknown, or is not a number.
        """
        found: dict[str, Any] = {**_typed_parameters(self.query)}
        found |= {"user": self.user, "password": self.password, "database": self.database}
        if len(self.hosts) > 1:
            found |= {"host": list(self.hosts), "port": list(self.ports)}
            found.setdefault("target_session_attrs", READ_WRITE)
        elif self.hosts:
            found |= {"host": self.hosts[0], "port": self.ports[0]}
        elif self.ports:
            found["port"] = self.ports[0]
        return {name: value for name, value in found.items() if value is not None}


def parse_database_url(url: str) -> DatabaseUrl:
    """
    Parse a URL.

    Raises:
        ConfigurationError: it is not a URL of PostgreSQL for asyncpg. The message does not quote
            it.
    """
    matched = _URL.match(url.strip())
    if matched is None or matched["driver"] != DRIVER:
        raise ConfigurationError(_INVALID_URL)
    try:
        parameters = parse_qs(matched["query"] or "")
        hosts, ports = _hosts_and_ports(matched, parameters)
        for host in hosts:
            _check_host(host)
    except ValueError:
        raise ConfigurationError(_INVALID_URL) from None
    for port in ports:
        if port is not None and not 1 <= port <= PORT_MAX:
            raise ConfigurationError(
                f"The database URL has the port {port}; a port is 1 to {PORT_MAX}."
            )
    query = {name: _single_value(name, values) for name, values in parameters.items()}
    user, password, database = (
        query.pop(name, None) or (matched[name] and unquote(matched[name])) or None
        for name in ("user", "password", "database")
    )
    for name in TLS_PARAMETERS:
        query.pop(name, None)
    return DatabaseUrl(
        user=user, password=password, hosts=hosts, ports=ports, database=database, query=query
    )


def _hosts_and_ports(
    matched: re.Match[str], parameters: dict[str, list[str]]
) -> tuple[Sequence[str], Sequence[int | None]]:
    """Take hosts and ports out of the parameters, which have precedence over the URL itself."""
    host_values = parameters.pop("host", [])
    ports = [each for value in parameters.pop("port", []) for each in value.split(",")]
    hosts = host_values[0].split(",") if len(host_values) == 1 else host_values
    if len(host_values) > 1 or (
        len(hosts) == 1 and not ports and _HOST_AND_PORT.fullmatch(hosts[0])
    ):
        if ports:
            raise ValueError  # two ways to write several hosts at once
        pairs = [each.partition(":") for each in hosts]
        hosts, ports = [host for host, _, _ in pairs], [port for _, _, port in pairs]
    url_host = matched["host"] or matched["ipv6"]
    if not hosts and url_host:
        hosts = [url_host]
    if not any(ports) and matched["port"]:
        ports = [matched["port"]]
    numbers = [int(port) if port else None for port in ports] or [None] * len(hosts)
    unequal = len(numbers) != max(1, len(hosts)) if numbers else False
    if unequal or matched["port"] == "" or (len(hosts) > 1 and not all([*hosts, *numbers])):
        raise ValueError
    return hosts, numbers


def _check_host(host: str) -> None:
    """Raise ValueError for a host that no resolver accepts."""
    if "\0" in host:
        raise ValueError
    if not host.startswith("/"):
        host.encode("idna")


def _single_value(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise ConfigurationError(f"The database URL has the parameter {name} more than once.")
    return values[0]


def _typed_parameters(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters with the types that asyncpg expects."""
    allowed = {*inspect.signature(asyncpg.connect).parameters, *NUMERIC_PARAMETERS}.difference(
        _OBJECT_PARAMETERS
    )
    found: dict[str, Any] = {}
    for name, value in query.items():
        if name not in allowed:
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which asyncpg does not know. Leave it"
                " out."
            )
        try:
            found[name] = NUMERIC_PARAMETERS[name](value) if name in NUMERIC_PARAMETERS else value
        except ValueError:
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which must be a number."
            ) from None
    return found
