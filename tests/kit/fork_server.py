"""
Run `saga-engine` commands in forks of a process that has imported the modules of the commands.

The imports take a second of processor time, and the tests run hundreds of commands. After the
imports everything is the command's own: process, arguments, environment, working
directory, streams and exit. The effects of an import are covered by tests that execute the command.

    python -P tests/kit/fork_server.py DESCRIPTOR

serves the socket DESCRIPTOR until its other end is closed.
"""

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from contextlib import ExitStack, suppress
from importlib import import_module, invalidate_caches
from pathlib import Path

COMMAND = Path(sys.executable).with_name("saga-engine")
COMMAND_TIMEOUT_S = 60.0
"""Seconds for a command to exit."""
_COMMANDS = Path(__file__).parents[2] / "saga_engine" / "cli"


class ForkedCommand:
    """
    A command that runs, with the interface of `asyncio.subprocess.Process`.

    Args:
        exit_socket: gets the process id and, when the process has ended, its exit code.
    """

    def __init__(
        self,
        exit_socket: tuple[StreamReader, StreamWriter],
        stdin: StreamWriter,
        stdout: StreamReader,
        stderr: StreamReader,
    ) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._exit_reader, self._exit_writer = exit_socket
        self._ended: asyncio.Task[None] | None = None

    async def read_pid(self) -> None:
        """Wait until it is forked."""
        self.pid = int(await self._exit_reader.readline())
        self._ended = asyncio.ensure_future(self._read_exit_code())

    async def _read_exit_code(self) -> None:
        self.returncode = int(await self._exit_reader.readline())

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        assert self._ended, "it was forked"
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def communicate(self) -> tuple[bytes, bytes]:
        """Read what is left of its output, and wait until it has ended."""
        self.stdin.close()
        printed = await self.stdout.read(), await self.stderr.read()
        await self.wait()
        self._exit_writer.close()
        return printed


class ForkServer:
    """The process that forks; it exits with the process that created it."""

    def __init__(self) -> None:
        self._request_socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    async def run(
        self, arguments: list[str], environment: dict[str, str], cwd: Path, stdin: bytes
    ) -> tuple[int, bytes, bytes]:
        """
        Run one command; return its exit code, its stdout and its stderr.

        Raises:
            TimeoutError: it has not exited in time.
        """
        request = json.dumps([arguments, environment, str(cwd)]).encode()
        ours, theirs = socket.socketpair()
        with (
            ours,
            tempfile.TemporaryFile() as source,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            source.write(stdin)
            source.seek(0)
            with theirs:
                files = [each.fileno() for each in (theirs, source, out, err)]
                socket.send_fds(self._request_socket, [b"!"], files)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await loop.sock_sendall(ours, request)
                ours.shutdown(socket.SHUT_WR)
                answer = b""
                while received := await loop.sock_recv(ours, 32):
                    answer += received
            _, code = answer.split()
            printed = []
            for each in (out, err):
                each.seek(0)
                printed.append(each.read())
        return int(code), printed[0], printed[1]

    async def start(
        self, arguments: list[str], environment: dict[str, str], cwd: Path
    ) -> ForkedCommand:
        """Start a command that the test ends; its streams are pipes."""
        request = json.dumps([arguments, environment, str(cwd)]).encode()
        ours, theirs = socket.socketpair()
        (stdin_fd, stdin), (stdout, stdout_fd), (stderr, stderr_fd) = (os.pipe() for _ in range(3))
        files = (stdin_fd, stdout_fd, stderr_fd)
        with theirs, ExitStack() as closing:
            for each in files:
                closing.callback(os.close, each)
            socket.send_fds(self._request_socket, [b"!"], [theirs.fileno(), *files])
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(request)
        writer.write_eof()
        started = ForkedCommand(
            (reader, writer),
            await _writer_of(stdin),
            await _reader_of(stdout),
            await _reader_of(stderr),
        )
        await started.read_pid()
        return started


async def _reader_of(descriptor: int) -> StreamReader:
    """Read a pipe."""
    reader = StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return reader


async def _writer_of(descriptor: int) -> StreamWriter:
    """Write to a pipe."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(descriptor, "wb", 0)
    )
    return StreamWriter(transport, protocol, None, loop)


def serve(request_socket: socket.socket) -> bool:
    """
    Fork for each request.

    Returns:
        True in a fork that must run the command, False when the other end of the socket is closed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    while True:
        request, descriptors, _, _ = socket.recv_fds(request_socket, 1, 4)
        if not request:
            return False
        connection_fd, *streams = descriptors
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request_socket.close()
            _run_command(connection_fd, streams)
            return True
        for each in descriptors:
            os.close(each)


def _run_command(connection_fd: int, streams: list[int]) -> None:
    """Fork again, and send that process's id and exit code. Returns only in it."""
    with socket.socket(fileno=connection_fd) as connection:
        request = b"".join(iter(lambda: connection.recv(65_536), b""))
        child = os.fork()
        if child:
            for each in streams:
                os.close(each)
            with suppress(OSError):  # the caller has given up
                connection.sendall(f"{child}\n".encode())
            _, status = os.waitpid(child, 0)
            with suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
    # The command handles these two, even if the tests run under nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, each in enumerate(streams):  # `sys.stdin` and its like use these numbers
        os.dup2(each, number)
        os.close(each)
    _open_standard_streams()
    arguments, environment, cwd = json.loads(request)
    sys.argv = [str(COMMAND), *arguments]
    sys.path.insert(0, str(COMMAND.parent))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    invalidate_caches()


def _open_standard_streams() -> None:
    """As the interpreter does: those of this process were made for files of another kind."""
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


if __name__ == "__main__":
    for path in sorted(_COMMANDS.glob("[!_]*.py")):
        import_module(f"saga_engine.cli.{path.stem}")
    # A module that a test has changed is not the one whose bytecode has the same size and second.
    sys.dont_write_bytecode = True
    # A command does not collect what it shares with this process, which would copy each page.
    gc.collect()
    gc.freeze()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        import_module("saga_engine.cli.main").main()
