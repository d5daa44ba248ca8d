"""
A private PostgreSQL server for the demo and for tests.

It changes nothing outside its directory, listens on a Unix socket (or on 127.0.0.1 with a
password), and stops with this process. fsync stays on, so that it has the durability of a server in
production. It is not for production: it has no backups and no replicas.
"""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import asyncpg

from saga_engine.embedded.programs import (
    postgres_bin_directory,
    reachable_by_all,
    unprivileged_user,
)
from saga_engine.embedded.server_process import OsUser, ServerProcess, free_port
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.lifecycle import AsyncResource

_ROLE = "saga"
_START_TIMEOUT = 60.0  # Seconds, for recovery after a crash on a slow disk.
_STOP_TIMEOUT = 20.0  # Seconds, for a fast shutdown with its checkpoint.
_MAX_SOCKET_PATH_BYTES = 100  # sun_path has 108 bytes (unix(7)).
_ENVIRONMENT = MappingProxyType({"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"})
_DEFAULT_SETTINGS = MappingProxyType({"shared_buffers": "32MB", "max_connections": "200"})
_STATUS_LINE = 7  # In postmaster.pid; pg_ctl reads it, too (miscadmin.h).
_READY_STATUSES = ("ready", "standby")


class PostgresServer(AsyncResource):
    """
    One PostgreSQL server for the duration of an `async with`.

    Args:
        directory: keeps the data for the next start; by default the data is temporary.
        use_tcp: listen on a free port of 127.0.0.1, for clients that cannot use a socket.
        settings: server parameters, as in postgresql.conf.
        bin_directory: the `bin` directory of an installation; found automatically by default.

    Raises:
        ConfigurationError: on entering: PostgreSQL is not installed, or the directory cannot be
            used.
        StoreUnavailable: on entering: the server did not start; the message ends with its log.
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

    async def _open(self, resources: AsyncExitStack) -> None:
        """Start the server; the first start of a directory initializes it."""
        self._bin_directory = self._bin_directory or postgres_bin_directory(self._run_as)
        self._directory = _prepare_directory(self._requested_directory, self._run_as)
        resources.push_async_callback(self._close)
        self._socket_directory = self._choose_socket_directory()
        if not self._data_directory.exists():
            await self._initialize()
        self._password = (self._directory / "password").read_text()
        await self._start()

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database `postgres`; its role is a superuser."""
        return self._database_url("postgres")

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._running_process.pid

    @property
    def log_path(self) -> Path:
        """The log file of the server."""
        return self._directory / "log"

    async def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database from `template`, which must have no connections; return its URL."""
        await self._execute(
            f'CREATE DATABASE "{_checked_database_name(name)}"'
            f' TEMPLATE "{_checked_database_name(template)}"'
        )
        return self._database_url(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database and terminate its connections."""
        await self._execute(f'DROP DATABASE "{_checked_database_name(name)}" WITH (FORCE)')

    def kill(self) -> None:
        """SIGKILL the postmaster and its children, as a crash would; `restart` recovers."""
        self._running_process.kill()

    async def restart(self) -> None:
        """Restart with the same URL, whether the server was killed or is running."""
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
        """Put the socket beside the data, unless the path is too long for a socket."""
        socket_name = f".s.PGSQL.{self._port}"
        directory = self._directory / "socket"
        if len(os.fsencode(directory / socket_name)) > _MAX_SOCKET_PATH_BYTES:
            directory = Path(
                tempfile.mkdtemp(prefix="saga-postgres-", dir="/tmp")
            )  # gettempdir() may be long
        return _make_private_directory(directory, self._run_as)

    async def _initialize(self) -> None:
        """Initialize a staging directory and rename it, so that no incomplete one is used."""
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
                f"initdb could not initialize {self._data_directory}: {initdb.log_tail()}"
            )
        staging.rename(self._data_directory)

    async def _start(self) -> None:
        version = int((self._data_directory / "PG_VERSION").read_text())
        settings = dict(self._settings)
        if version >= 18:
            settings.setdefault("io_method", "sync")  # A small database needs no I/O workers.
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
        assert self._bin_directory, "found before a program is started"
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
    """Create the directory; the mode of a directory that exists is not changed."""
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
            f"PostgreSQL does not run as root, and the user `nobody` cannot access {directory}."
            " Choose a directory whose parents other users may enter (for example under /var/lib),"
            " or start this as an ordinary user."
        )
    return directory


def _make_private_directory(directory: Path, run_as: OsUser | None) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    if run_as:
        os.chown(directory, run_as.uid, run_as.gid)
    return directory


def _checked_database_name(name: str) -> str:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigurationError(f"{name!r} is not a database name: use letters, digits, _ and -.")
    return name
