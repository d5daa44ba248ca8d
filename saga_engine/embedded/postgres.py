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

from saga_engine.embedded.process import OsUser, ServerProcess, free_port
from saga_engine.embedded.programs import (
    postgres_bin_directory,
    reachable_by_all,
    unprivileged_user,
)
from saga_engine.errors import ConfigurationError, StoreUnavailable

_ROLE = "saga"
_START_TIMEOUT = 60.0  # Seconds: recovery after a crash on a slow disk.
_STOP_TIMEOUT = 20.0  # Seconds for a fast shutdown with its checkpoint.
_MAX_SOCKET_PATH_BYTES = 100  # sun_path holds 108 with its end; PostgreSQL refuses more (unix(7)).
_ENVIRONMENT = MappingProxyType({"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"})
_DEFAULT_SETTINGS = MappingProxyType({"shared_buffers": "32MB", "max_connections": "200"})
_STATUS_LINE = 7  # Of postmaster.pid, where pg_ctl looks as well (PostgreSQL's miscadmin.h).
_READY_STATUSES = ("ready", "standby")


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
        use_tcp: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
        bin_directory: Path | None = None,
    ) -> None:
        self._requested_directory = directory
        self._use_tcp = use_tcp
        self._settings = {**_DEFAULT_SETTINGS, **settings}
        self._run_as = unprivileged_user()
        self._port = free_port() if use_tcp else 5432
        self._password = ""
        self._directory = Path()
        self._socket_directory = Path()
        self._bin_directory = bin_directory
        self._process: ServerProcess | None = None

    async def __aenter__(self) -> Self:
        """
        Start it; the first start of a directory makes the database.

        Raises:
            ConfigurationError: PostgreSQL is not installed, or the directory cannot be used.
            StoreUnavailable: it did not start; the text has the end of its log.
        """
        self._bin_directory = self._bin_directory or postgres_bin_directory(self._run_as)
        self._directory = _prepare_directory(self._requested_directory, self._run_as)
        try:
            self._socket_directory = self._choose_socket_directory()
            if not self._data_directory.exists():
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
        return self._database_url("postgres")

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running_process.pid

    @property
    def log_path(self) -> Path:
        """The file that it prints to."""
        return self._directory / "log"

    async def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, which nobody may be using; return its URL."""
        await self._execute(
            f'CREATE DATABASE "{_checked_database_name(name)}"'
            f' TEMPLATE "{_checked_database_name(template)}"'
        )
        return self._database_url(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database and cut whoever still uses it."""
        await self._execute(f'DROP DATABASE "{_checked_database_name(name)}" WITH (FORCE)')

    def kill(self) -> None:
        """SIGKILL the postmaster and its children, as a power cut would; `restart` recovers."""
        self._running_process.kill()

    async def restart(self) -> None:
        """Start again with the same URL, whether it was killed or still runs."""
        await self._running_process.stop(signal.SIGINT, _STOP_TIMEOUT)
        await self._start()

    @property
    def _data_directory(self) -> Path:
        return self._directory / "data"

    @property
    def _running_process(self) -> ServerProcess:
        assert self._process, "PostgresServer is used outside its `async with`"
        return self._process

    def _database_url(self, database: str) -> str:
        scheme = "postgresql+asyncpg"
        if self._use_tcp:
            return f"{scheme}://{_ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"
        return f"{scheme}://{_ROLE}@/{database}?host={quote(str(self._socket_directory))}&port={self._port}"

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(
            host=str(self._socket_directory), port=self._port, user=_ROLE, database="postgres"
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _choose_socket_directory(self) -> Path:
        """Where the socket goes: beside the data, unless that path is too long for a socket."""
        socket_name = f".s.PGSQL.{self._port}"
        directory = self._directory / "socket"
        if len(os.fsencode(directory / socket_name)) > _MAX_SOCKET_PATH_BYTES:
            directory = Path(
                tempfile.mkdtemp(prefix="saga-postgres-", dir="/tmp")
            )  # gettempdir() may be long
        return _make_private_directory(directory, self._run_as)

    async def _initialize(self) -> None:
        """Make the data directory beside its final place, so that a half-made one is never used."""
        password_file = self._directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        staging = self._directory / "data.new"
        shutil.rmtree(staging, ignore_errors=True)
        _make_private_directory(staging, self._run_as)
        if self._run_as:
            os.chown(password_file, self._run_as.uid, self._run_as.gid)
        arguments = ["-U", _ROLE, "--encoding=UTF8", "--no-locale", f"--pwfile={password_file}"]
        arguments += ["--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"]
        arguments += [] if self._requested_directory else ["--no-sync"]
        initdb = await self._start_program("initdb", "-D", str(staging), *arguments)
        if await initdb.wait():
            raise StoreUnavailable(
                f"initdb could not make {self._data_directory}: {initdb.log_tail()}"
            )
        staging.rename(self._data_directory)

    async def _start(self) -> None:
        version = int((self._data_directory / "PG_VERSION").read_text())
        settings = dict(self._settings)
        if version >= 18:
            settings.setdefault("io_method", "sync")  # No worker processes for a small database.
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = await self._start_program(
            *("postgres", "-D", str(self._data_directory), "-k", str(self._socket_directory)),
            *("-h", "127.0.0.1" if self._use_tcp else "", "-p", str(self._port), *arguments),
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                async for _ in self._process.poll_while_running():
                    if self._is_ready():
                        return
        except TimeoutError:
            pass
        raise StoreUnavailable(
            f"PostgreSQL did not start. Its log ends: {self._process.log_tail()}"
        )

    async def _start_program(self, name: str, *arguments: str) -> ServerProcess:
        assert self._bin_directory, "they are found before anything is started"
        return await ServerProcess.start(
            (self._bin_directory / name, *arguments),
            log_path=self.log_path,
            environment=_ENVIRONMENT,
            run_as=self._run_as,
            stop_signal=signal.SIGINT,  # A fast shutdown (PostgreSQL manual, 18.5).
        )

    def _is_ready(self) -> bool:
        try:
            lines = (self._data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        is_own_pid = bool(lines) and lines[0] == str(self.pid)
        return (
            is_own_pid
            and len(lines) > _STATUS_LINE
            and lines[_STATUS_LINE].strip() in _READY_STATUSES
        )

    async def _close(self) -> None:
        if self._process:
            await self._process.stop(signal.SIGINT, _STOP_TIMEOUT)
        if self._requested_directory is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._socket_directory.parent != self._directory and self._socket_directory != Path():
            shutil.rmtree(self._socket_directory, ignore_errors=True)


def _prepare_directory(requested: Path | None, run_as: OsUser | None) -> Path:
    """The directory, absolute; only one made here gets its mode from us, its parents never do."""
    if requested is None:
        directory = Path(tempfile.mkdtemp(prefix="saga-postgres-")).resolve()
        directory.chmod(0o755)
    else:
        directory = requested.absolute()
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o755)
    if run_as and not reachable_by_all(directory):
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the user nobody cannot reach {directory}."
            " Choose a directory whose parents others may enter (for example under /var/lib), or"
            " start this as an ordinary user."
        )
    return directory


def _make_private_directory(directory: Path, run_as: OsUser | None) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    if run_as:
        os.chown(directory, run_as.uid, run_as.gid)
    return directory


def _checked_database_name(name: str) -> str:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigurationError(
            f"{name!r} is no name for a database: use letters, digits, _ and -"
        )
    return name
