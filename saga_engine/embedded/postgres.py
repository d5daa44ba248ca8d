"""
A private PostgreSQL: for the demo and for tests.

Nothing outside its own directory changes, it listens on a socket (or on 127.0.0.1 behind a
password), and it ends with us. fsync stays on: what it promises is what production promises. It is
not for production: nobody backs it up.
"""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import quote

import asyncpg

from saga_engine.embedded.process import Account, ServerProcess, free_port
from saga_engine.embedded.programs import postgres_programs, reachable, unprivileged_account
from saga_engine.errors import ConfigurationError, StoreUnavailable

_ROLE = "saga"
_START_TIMEOUT = 60.0  # Seconds: recovery after a crash on a slow disk.
_STOP_TIMEOUT = 20.0  # Seconds for a fast shutdown with its checkpoint.
_SOCKET_BYTES = 100  # sun_path holds 108 with its end; PostgreSQL refuses more (unix(7)).
_ENVIRONMENT = MappingProxyType({"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"})
_SETTINGS = MappingProxyType({"shared_buffers": "32MB", "max_connections": "200"})
_READY_LINE = 7  # Of postmaster.pid, where pg_ctl looks as well (PostgreSQL's miscadmin.h).
_READY = ("ready", "standby")


class PostgresServer:
    """
    One PostgreSQL server for the time of an `async with`.

    With a `directory` the data stays there and the next start goes on with it; without, it is
    temporary. `settings` are server parameters, as in postgresql.conf. `tcp` listens on a free port
    of 127.0.0.1 for clients that cannot use a socket. `programs` is another installation's `bin`
    than the one found by itself.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        tcp: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
        programs: Path | None = None,
    ) -> None:
        self._given = directory
        self._tcp = tcp
        self._settings = {**_SETTINGS, **settings}
        self._account = unprivileged_account()
        self._port = free_port() if tcp else 5432
        self._password = ""
        self._directory = Path()
        self._sockets = Path()
        self._programs = programs
        self._process: ServerProcess | None = None

    async def __aenter__(self) -> Self:
        """
        Start it; the first start of a directory makes the database.

        Raises:
            ConfigurationError: PostgreSQL is not installed, or the directory cannot be used.
            StoreUnavailable: it did not start; the text has the end of its log.
        """
        self._programs = self._programs or postgres_programs(self._account)
        self._directory = _prepare(self._given, self._account)
        try:
            self._sockets = self._choose_sockets()
            if not self._data.exists():
                await self._initialize()
            self._password = (self._directory / "password").read_text()
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it (fast shutdown) and remove what is temporary."""
        await self._close()

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the maintenance database `postgres`; the role is a superuser."""
        return self._url("postgres")

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running.pid

    @property
    def log(self) -> Path:
        """The file that it prints to."""
        return self._directory / "log"

    async def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, which nobody may be using; return its URL."""
        await self._execute(f'CREATE DATABASE "{_plain(name)}" TEMPLATE "{_plain(template)}"')
        return self._url(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database and cut whoever still uses it."""
        await self._execute(f'DROP DATABASE "{_plain(name)}" WITH (FORCE)')

    def kill(self) -> None:
        """SIGKILL the postmaster and its children, as a power cut would; `restart` recovers."""
        self._running.kill()

    async def restart(self) -> None:
        """Start again with the same URL, whether it was killed or still runs."""
        await self._running.stop(signal.SIGINT, _STOP_TIMEOUT)
        await self._start()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _running(self) -> ServerProcess:
        assert self._process, "PostgresServer is used outside its `async with`"
        return self._process

    def _url(self, database: str) -> str:
        scheme = "postgresql+asyncpg"
        if self._tcp:
            return f"{scheme}://{_ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"
        return f"{scheme}://{_ROLE}@/{database}?host={quote(str(self._sockets))}&port={self._port}"

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(
            host=str(self._sockets), port=self._port, user=_ROLE, database="postgres"
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _choose_sockets(self) -> Path:
        """Where the socket goes: beside the data, unless that path is too long for a socket."""
        name = f".s.PGSQL.{self._port}"
        sockets = self._directory / "socket"
        if len(os.fsencode(sockets / name)) > _SOCKET_BYTES:
            sockets = Path(
                tempfile.mkdtemp(prefix="saga-postgres-", dir="/tmp")
            )  # gettempdir() may be long
        return _private(sockets, self._account)

    async def _initialize(self) -> None:
        """Make the data directory beside its final place, so that a half-made one is never used."""
        password = self._directory / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        draft = self._directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        _private(draft, self._account)
        if self._account:
            os.chown(password, self._account.uid, self._account.gid)
        arguments = ["-U", _ROLE, "--encoding=UTF8", "--no-locale", f"--pwfile={password}"]
        arguments += ["--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"]
        arguments += [] if self._given else ["--no-sync"]
        making = await self._program("initdb", "-D", str(draft), *arguments)
        if await making.wait():
            raise StoreUnavailable(f"initdb could not make {self._data}: {making.tail()}")
        draft.rename(self._data)

    async def _start(self) -> None:
        version = int((self._data / "PG_VERSION").read_text())
        settings = dict(self._settings)
        if version >= 18:
            settings.setdefault("io_method", "sync")  # No worker processes for a small database.
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = await self._program(
            *("postgres", "-D", str(self._data), "-k", str(self._sockets)),
            *("-h", "127.0.0.1" if self._tcp else "", "-p", str(self._port), *arguments),
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                async for _ in self._process.looks():
                    if self._ready():
                        return
        except TimeoutError:
            pass
        raise StoreUnavailable(f"PostgreSQL did not start. Its log ends: {self._process.tail()}")

    async def _program(self, name: str, *arguments: str) -> ServerProcess:
        assert self._programs, "they are found before anything is started"
        return await ServerProcess.start(
            (self._programs / name, *arguments),
            log=self.log,
            environment=_ENVIRONMENT,
            account=self._account,
            parting=signal.SIGINT,  # A fast shutdown (PostgreSQL manual, 18.5).
        )

    def _ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        ours = bool(lines) and lines[0] == str(self.pid)
        return ours and len(lines) > _READY_LINE and lines[_READY_LINE].strip() in _READY

    async def _close(self) -> None:
        if self._process:
            await self._process.stop(signal.SIGINT, _STOP_TIMEOUT)
        if self._given is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._sockets.parent != self._directory and self._sockets != Path():
            shutil.rmtree(self._sockets, ignore_errors=True)


def _prepare(given: Path | None, account: Account | None) -> Path:
    """The directory, absolute; only one made here gets its mode from us, its parents never do."""
    if given is None:
        directory = Path(tempfile.mkdtemp(prefix="saga-postgres-")).resolve()
        directory.chmod(0o755)
    else:
        directory = given.absolute()
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o755)
    if account and not reachable(directory):
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the user nobody cannot reach {directory}."
            " Choose a directory whose parents others may enter (for example under /var/lib), or"
            " start this as an ordinary user."
        )
    return directory


def _private(directory: Path, account: Account | None) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(directory, account.uid, account.gid)
    return directory


def _plain(name: str) -> str:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigurationError(
            f"{name!r} is no name for a database: use letters, digits, _ and -"
        )
    return name
