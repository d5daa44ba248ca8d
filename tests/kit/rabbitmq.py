"""
A private RabbitMQ node for tests and benchmarks.

It shares nothing with a RabbitMQ that runs on the machine: it has its own epmd, ports, cookie and
data, which are deleted at the end. It needs RabbitMQ's package but not its service: no root, no
management. The stream plugin, which comes with RabbitMQ, is enabled.

With RABBITMQ_ROOT, nodes run from the file system in that directory, as `make test-rabbitmq4` makes
it with another version of RabbitMQ.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from saga_engine.embedded.server_process import ServerProcess, free_port
from saga_engine.errors import BrokerError, BrokerUnavailable, ConfigurationError

INSTALL_COMMAND = "apt-get install rabbitmq-server"

ROOT = Path(os.environ.get("RABBITMQ_ROOT", "/"))
_ENTER_ROOT = Path(__file__).parents[1] / "tools" / "enter_root.sh"

_START_TIMEOUT = 90.0  # Seconds; 3 to 9 are usual on two cores.
_STOP_TIMEOUT = 20.0  # Seconds; a quorum queue is flushed in one.
_RABBITMQCTL_TIMEOUT = 60.0  # Seconds one rabbitmqctl call may take.
_DEFAULT_NODE_NAME = "saga-engine"
# Two schedulers that sleep when idle, to leave the cores to the tests. `-noinput`, because the
# start script omits it when it replaces itself with Erlang (see _environment).
_ERLANG_ARGUMENTS = "-noinput +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
# The nodes of a cluster treat a node as dead after 10 s; Erlang's default is 60 s.
_DISTRIBUTION_ARGUMENTS = "-kernel inet_dist_use_interface {127,0,0,1} -kernel net_ticktime 10"
_CONFIGURATION_TEMPLATE = """\
listeners.tcp.local = 127.0.0.1:{port}
stream.listeners.tcp.local = 127.0.0.1:{stream_port}
stream.advertised_host = 127.0.0.1
stream.advertised_port = {stream_port}
log.console = false
log.file.level = warning
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
cluster_partition_handling = pause_minority
"""


def rabbitmq_installed() -> bool:
    """Whether `RabbitMQServer` can start on this machine."""
    return _find_scripts() is not None and _find_epmd() is not None


class RabbitMQServer:
    """
    One RabbitMQ node, for an `async with`; its data is temporary unless a directory is given.

    Args:
        extra_configuration: lines of rabbitmq.conf that are needed from the start, such as TLS.
        name: the node's name, without its host.
        cluster_peer: a running node whose cluster this one can join (`join_cluster`).
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        extra_configuration: str = "",
        name: str = _DEFAULT_NODE_NAME,
        cluster_peer: "RabbitMQServer | None" = None,
    ) -> None:
        self.node_name = f"{name}@localhost"
        self._requested_directory = directory
        self._extra_configuration = extra_configuration
        self._cluster_peer = cluster_peer
        self._directory = Path()
        self._scripts_directory = Path()
        self._port = free_port()
        self.stream_port = free_port()
        self._epmd_port: int = cluster_peer._epmd_port if cluster_peer else free_port()
        self._distribution_port = free_port()
        self._epmd_process: ServerProcess | None = None
        self._node_process: ServerProcess | None = None

    async def __aenter__(self) -> Self:
        """
        Start the node, and return when it accepts connections.

        Raises:
            ConfigurationError: RabbitMQ is not installed; the text has the command that does it.
            BrokerUnavailable: the node did not start; the text has the end of its log.
        """
        scripts, epmd = _find_scripts(), _find_epmd()
        if scripts is None or epmd is None:
            raise ConfigurationError(f"RabbitMQ is not installed. Run `{INSTALL_COMMAND}`.")
        self._scripts_directory = scripts
        self._directory = self._prepare_directory()
        try:
            if self._cluster_peer is None:
                self._epmd_process = await ServerProcess.start(
                    (*_in_root(epmd), "-address", "127.0.0.1", "-port", str(self._epmd_port)),
                    log_path=self._directory / "epmd.log",
                    environment=self._environment(),
                )
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the node and epmd, and delete temporary data."""
        await self._close()

    @property
    def url(self) -> str:
        """The default virtual host, as the administrator guest."""
        return self.url_of("/")

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine."""
        return self._running_process.pid

    def url_of(self, vhost: str) -> str:
        """The URL of a virtual host; it must exist."""
        path = "" if vhost == "/" else vhost
        return f"amqp://guest:guest@127.0.0.1:{self._port}/{path}"

    def stream_url_of(self, vhost: str) -> str:
        """The URL of a virtual host, by the stream protocol; it must exist."""
        return f"rabbitmq-stream://guest:guest@127.0.0.1:{self.stream_port}/{quote(vhost, safe='')}"

    async def sync_metadata(self) -> None:
        """
        Sync the metadata of quorum queues to disk, which RabbitMQ otherwise does a little later.

        On 3.10 a queue that was declared just before a `kill` cannot be used afterwards.
        """
        await self.rabbitmqctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    async def join_cluster(self) -> None:
        """Join the cluster of the peer; nodes must join one after the other."""
        assert self._cluster_peer, "a node joins the cluster of its peer"
        await self.rabbitmqctl("stop_app")
        await self.rabbitmqctl("join_cluster", self._cluster_peer.node_name)
        await self.rabbitmqctl("start_app")

    def kill(self) -> None:
        """SIGKILL the node, like a power failure; `restart` starts it again with its data."""
        self._running_process.kill()

    async def restart(self, *, wipe_data: bool = False) -> None:
        """
        Restart on the same port, whether the node was killed or still runs.

        The data is kept, unless `wipe_data` deletes it, as on a new disk.
        """
        await self._running_process.stop(signal.SIGTERM, _STOP_TIMEOUT)
        if wipe_data:
            shutil.rmtree(self._directory / "data")
            (self._directory / "feature_flags").unlink(missing_ok=True)
        await self._start()

    async def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against the node and return what it prints; about a second each."""
        command = (
            *_in_root(self._scripts_directory / "rabbitmqctl"),
            "--quiet",
            "--node",
            self.node_name,
            *arguments,
        )
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(),
        )
        try:
            async with asyncio.timeout(_RABBITMQCTL_TIMEOUT):
                output, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        text = output.decode(errors="replace")
        if process.returncode:
            raise BrokerError(f"rabbitmqctl {' '.join(arguments)} failed: {text}")
        return text

    async def import_definitions(self, definitions: Mapping[str, object]) -> None:
        """Make virtual hosts, users and permissions; as many as are needed in one call."""
        file = self._directory / "definitions.json"
        file.write_text(json.dumps(definitions))
        await self.rabbitmqctl("import_definitions", str(file))

    @property
    def _running_process(self) -> ServerProcess:
        assert self._node_process, "RabbitServer is used outside its `async with`"
        return self._node_process

    def _prepare_directory(self) -> Path:
        directory = self._requested_directory or Path(tempfile.mkdtemp(prefix="saga-rabbitmq-"))
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        cookie = directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(self._erlang_cookie())
            cookie.chmod(0o400)
        (directory / "enabled_plugins").write_text("[rabbitmq_stream].")
        (directory / "rabbitmq.conf").write_text(
            _CONFIGURATION_TEMPLATE.format(port=self._port, stream_port=self.stream_port)
            + self._extra_configuration
        )
        return directory

    def _erlang_cookie(self) -> str:
        if self._cluster_peer is None:
            return secrets.token_hex(16)
        return (self._cluster_peer._directory / ".erlang.cookie").read_text()

    def _environment(self) -> dict[str, str]:
        """RabbitMQ's own variables (rabbitmq.com/docs/configure), without those of the tests."""
        directory = str(self._directory)
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": directory,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Makes the start script replace itself with Erlang: its pid is the node's.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": "32000",
            "RABBITMQ_CTL_DIST_PORT_MAX": "32700",
            "RABBITMQ_MNESIA_BASE": f"{directory}/data",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{directory}/feature_flags",
            "RABBITMQ_PLUGINS_EXPAND_DIR": f"{directory}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{directory}/generated",
            "RABBITMQ_PID_FILE": f"{directory}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_ERLANG_ARGUMENTS} {_DISTRIBUTION_ARGUMENTS}",
        }

    async def _start(self) -> None:
        self._node_process = await ServerProcess.start(
            _in_root(self._scripts_directory / "rabbitmq-server"),
            log_path=self._directory / "output.log",
            environment=self._environment(),
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                async for _ in self._node_process.poll_while_running():
                    if _accepts_connections(self._port):
                        return
        except TimeoutError:
            pass
        raise BrokerUnavailable(
            f"RabbitMQ did not start. Its log ends: {self._node_process.log_tail()}"
        )

    async def _close(self) -> None:
        for process in (self._node_process, self._epmd_process):
            if process:
                await process.stop(signal.SIGTERM, _STOP_TIMEOUT)
        if self._requested_directory is None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _accepts_connections(port: int) -> bool:
    """Whether a server listens on the port, which RabbitMQ opens as the last step of its start."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _in_root(program: Path) -> tuple[str, ...]:
    """The command that runs a program of ROOT."""
    if Path("/") == ROOT:
        return (str(program),)
    return ("sh", str(_ENTER_ROOT), str(ROOT), str(Path("/") / program.relative_to(ROOT)))


def _find_scripts() -> Path | None:
    """The directory of RabbitMQ's own scripts; Debian's in /usr/sbin require its own user."""
    candidates = [ROOT / "usr/lib/rabbitmq/bin", ROOT / "opt/rabbitmq/sbin"]
    candidates += sorted(ROOT.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"), reverse=True)
    if Path("/") == ROOT and (
        found := shutil.which("rabbitmq-server", path="/usr/local/sbin:/opt/homebrew/sbin")
    ):
        candidates.append(Path(found).resolve().parent)
    return next(
        (candidate for candidate in candidates if (candidate / "rabbitmq-server").exists()), None
    )


def _find_epmd() -> Path | None:
    """Erlang's port mapper, started separately, because Erlang would leave it running."""
    if Path("/") == ROOT and (found := shutil.which("epmd")):
        return Path(found)
    return max(ROOT.glob("usr/lib/erlang/erts-*/bin/epmd"), default=None)
