"""
The URL of a database, read: what the driver connects to, and what may be shown of it.

    postgresql+asyncpg://user:password@host:5432/database?sslmode=verify-full
    postgresql+asyncpg://user:password@/database?host=one:5432&host=two:5432

It is read as SQLAlchemy reads it, whose form it has: users write the same URL for both.
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
WRITABLE = "read-write"
DRIVER = "postgresql+asyncpg"

TLS = (tls.SSLMODE, tls.DATABASE.ca, tls.DATABASE.certificate, tls.DATABASE.key)
"""Parameters of a URL that `tls` reads."""

NUMBERS: Mapping[str, type[int] | type[float]] = {
    "timeout": float,
    "command_timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "prepared_statement_cache_size": int,
}
"""Parameters of a URL that are numbers; the last one is SQLAlchemy's, the others asyncpg's."""

_OBJECTS = ("loop", "connection_class", "record_class", "server_settings", "direct_tls", "dsn")
"""Parameters of asyncpg's that cannot be written in a URL."""

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

_NO_URL = (
    "The database URL cannot be read."
    " It has the form postgresql+asyncpg://user:password@host:5432/database"
)


@dataclass(frozen=True, slots=True)
class Address:
    """
    What a URL says.

    `hosts` and `ports` are as long as each other; a port of None is the driver's usual one, and no
    hosts at all mean its usual ones. `query` has the parameters that are not about hosts or TLS.
    """

    user: str | None
    password: str | None = field(repr=False)
    hosts: Sequence[str]
    ports: Sequence[int | None]
    database: str | None
    query: Mapping[str, str] = field(repr=False)

    @property
    def text(self) -> str:
        """User, hosts and database, without the password."""
        shown = list(self.hosts) or ["localhost"]
        ports = list(self.ports) or [None]
        if len(shown) == 1:
            places = f"{shown[0]}:{ports[0] or 5432}"
        else:
            places = ",".join(f"{host}:{port}" for host, port in zip(shown, ports, strict=True))
        return f"{self.user or ''}@{places}/{self.database or ''}"

    def arguments(self) -> dict[str, Any]:
        """
        Give what `asyncpg.connect` takes, without the TLS context.

        Of several hosts, the one is wanted that takes writes.

        Raises:
            ConfigurationError: a parameter is not known, or is not the number that it must be.
        """
        found: dict[str, Any] = {**_known(self.query)}
        found |= {"user": self.user, "password": self.password, "database": self.database}
        if len(self.hosts) > 1:
            found |= {"host": list(self.hosts), "port": list(self.ports)}
            found.setdefault("target_session_attrs", WRITABLE)
        elif self.hosts:
            found |= {"host": self.hosts[0], "port": self.ports[0]}
        elif self.ports:
            found["port"] = self.ports[0]
        return {name: value for name, value in found.items() if value is not None}


def read(url: str) -> Address:
    """
    Read a URL.

    Raises:
        ConfigurationError: it is not one of PostgreSQL for asyncpg. The text does not quote it.
    """
    matched = _URL.match(url.strip())
    if matched is None or matched["driver"] != DRIVER:
        raise ConfigurationError(_NO_URL)
    try:
        given = parse_qs(matched["query"] or "")
        hosts, ports = _places(matched, given)
        for host in hosts:
            _check_host(host)
    except ValueError:
        raise ConfigurationError(_NO_URL) from None
    for port in ports:
        if port is not None and not 1 <= port <= PORT_MAX:
            raise ConfigurationError(
                f"The database URL has the port {port}; a port is 1 to {PORT_MAX}."
            )
    query = {name: _only(name, values) for name, values in given.items()}
    user, password, database = (
        query.pop(name, None) or (matched[name] and unquote(matched[name])) or None
        for name in ("user", "password", "database")
    )
    for name in TLS:
        query.pop(name, None)
    return Address(user, password, hosts, ports, database, query)


def _places(
    matched: re.Match[str], given: dict[str, list[str]]
) -> tuple[Sequence[str], Sequence[int | None]]:
    """Take hosts and ports out of the parameters, which count before those of the URL itself."""
    named = given.pop("host", [])
    ports = [each for value in given.pop("port", []) for each in value.split(",")]
    hosts = named[0].split(",") if len(named) == 1 else named
    if len(named) > 1 or (len(hosts) == 1 and not ports and _HOST_AND_PORT.fullmatch(hosts[0])):
        if ports:
            raise ValueError  # two ways to write several hosts at once
        pairs = [each.partition(":") for each in hosts]
        hosts, ports = [host for host, _, _ in pairs], [port for _, _, port in pairs]
    own = matched["host"] or matched["ipv6"]
    if not hosts and own:
        hosts = [own]
    if not any(ports) and matched["port"]:
        ports = [matched["port"]]
    numbers = [int(port) if port else None for port in ports] or [None] * len(hosts)
    unequal = len(numbers) != max(1, len(hosts)) if numbers else False
    if unequal or matched["port"] == "" or (len(hosts) > 1 and not all([*hosts, *numbers])):
        raise ValueError
    return hosts, numbers


def _check_host(host: str) -> None:
    """Raise ValueError for a host that no resolver takes."""
    if "\0" in host:
        raise ValueError
    if not host.startswith("/"):
        host.encode("idna")


def _only(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise ConfigurationError(f"The database URL has the parameter {name} more than once.")
    return values[0]


def _known(query: Mapping[str, str]) -> dict[str, Any]:
    """The parameters, of the type that asyncpg takes."""
    known = {*inspect.signature(asyncpg.connect).parameters, *NUMBERS}.difference(_OBJECTS)
    found: dict[str, Any] = {}
    for name, value in query.items():
        if name not in known:
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which asyncpg does not know. Leave it"
                " out."
            )
        try:
            found[name] = NUMBERS[name](value) if name in NUMBERS else value
        except ValueError:
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which must be a number."
            ) from None
    return found
