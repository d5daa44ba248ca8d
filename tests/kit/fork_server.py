"""
Run `saga-engine` commands in forks of a process that has imported the modules of the commands.

Two thirds of the time of a short command are its imports, and the tests run hundreds of commands.
After the imports everything is the command's own: process, arguments, environment, working
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
from contextlib import suppress
from importlib import import_module, invalidate_caches
from pathlib import Path

COMMAND = Path(sys.executable).with_name("saga-engine")
COMMAND_TIMEOUT_S = 60.0
"""Seconds for a command to exit."""
_MODULES = (
    *("bulk_output", "bulk_resolve", "config", "dead_letters", "definitions", "feeds"),
    *("incident_guidance", "incidents", "json_argument", "main", "migrate", "operator", "paging"),
    *("projections", "recover", "redrive", "run_document", "runs", "services", "start", "streams"),
    *("tail", "token_key", "topology"),
)


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
                code = int(await loop.sock_recv(ours, 16))
            printed = []
            for each in (out, err):
                each.seek(0)
                printed.append(each.read())
        return code, printed[0], printed[1]


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
    """Fork again, and send the exit code of that process. Returns only in it."""
    with socket.socket(fileno=connection_fd) as connection:
        request = b"".join(iter(lambda: connection.recv(65_536), b""))
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            with suppress(OSError):  # the caller has given up
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
    for number, each in enumerate(streams):  # `sys.stdin` and its like use these numbers
        os.dup2(each, number)
        os.close(each)
    arguments, environment, cwd = json.loads(request)
    sys.argv = [str(COMMAND), *arguments]
    sys.path.insert(0, str(COMMAND.parent))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    invalidate_caches()


if __name__ == "__main__":
    for name in _MODULES:
        import_module(f"saga_engine.cli.{name}")
    # A command does not collect what it shares with this process, which would copy each page.
    gc.collect()
    gc.freeze()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        import_module("saga_engine.cli.main").main()
