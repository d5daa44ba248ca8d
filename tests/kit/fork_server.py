"""
The command in a process that has imported what commands need: a fork of one that waits.

Two thirds of what a short command costs are its imports, and the tests give hundreds of commands.
All that follows them is the command's own: its process, arguments, environment, directory, streams
and end. What an import itself does is seen by the tests that execute the command.

    python -P tests/kit/fork_server.py DESCRIPTOR

This serves the socket DESCRIPTOR until its other end is closed.
"""

import asyncio
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
COMMAND_TIMEOUT_S = 60.0  # In which a command ends.
_MODULES = (
    *("asking", "bulk", "config", "dead_letters", "definitions", "given", "guidance", "incidents"),
    *("main", "migrate", "operating", "paging", "recover", "runs", "services", "settling"),
    *("token_key", "topology"),
)


class ForkServer:
    """The process that waits; it ends with the one that made it."""

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
        Run one command; its exit code, and what it printed to stdout and to stderr.

        Raises:
            TimeoutError: it has not ended in time.
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
    Fork for each command that is asked for.

    Returns:
        True in a process that is to become a command, False when the socket's other end is closed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    while True:
        request, descriptors, _, _ = socket.recv_fds(request_socket, 1, 4)
        if not request:
            return False
        conversation, *streams = descriptors
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request_socket.close()
            _run_command(conversation, streams)
            return True
        for each in descriptors:
            os.close(each)


def _run_command(connection_fd: int, streams: list[int]) -> None:
    """Fork once more, and tell how that process ends. Returns in it."""
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
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        import_module("saga_engine.cli.main").main()
