"""Writing log lines never waits for their reader."""

import os
import socket
import threading

import pytest

from saga_engine.telemetry.nonblocking_stream import (
    MAX_BUFFER_BYTES,
    PIPE_CHUNK_BYTES,
    NonblockingStream,
    nonblocking_writer,
)

LINE = "a line of the log " * 5
LINE_COUNT = 2 * MAX_BUFFER_BYTES // len(LINE)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as writer:
        yield reader, writer


def numbered():
    return (f"{number} {LINE}\n" for number in range(LINE_COUNT))


def test_lines_above_the_buffer_limit_are_lost_with_an_error(pipe):
    reader, writer = pipe
    kept, lost = [], 0
    with nonblocking_writer(writer) as stream:
        for line in numbered():
            try:
                stream.write(line)
            except BlockingIOError:
                lost += 1
            else:
                kept.append(line)
        assert sum(map(len, kept)) > MAX_BUFFER_BYTES
        assert lost
        read = threading.Thread(target=lambda: found.append(reader.read(len("".join(kept)))))
        found: list[bytes] = []
        read.start()
    read.join()
    assert found == ["".join(kept).encode()]


def test_lines_that_a_pipe_keeps_together_are_not_cut():
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # shows each write
    few_lines = "".join(list(numbered())[:60])
    with reader, writer, open(writer.fileno(), "w", closefd=False) as file:
        with nonblocking_writer(file) as stream:
            stream.write(few_lines + "x" * PIPE_CHUNK_BYTES + "\n" + few_lines)
        reader.setblocking(False)
        writes = [reader.recv(2 * PIPE_CHUNK_BYTES) for _ in range(5)]
    assert b"".join(writes).decode() == few_lines + "x" * PIPE_CHUNK_BYTES + "\n" + few_lines
    assert max(map(len, writes)) <= PIPE_CHUNK_BYTES
    assert [each[-1:] for each in writes] == [b"\n", b"\n", b"x", b"\n", b"\n"]


def test_a_slow_reader_gets_everything_in_order(pipe):
    reader, writer = pipe
    found: list[bytes] = []
    lines = list(numbered())[: LINE_COUNT // 4]
    read = threading.Thread(target=lambda: found.append(reader.read(len("".join(lines)))))
    with nonblocking_writer(writer) as stream:
        stream.writelines(lines)
        read.start()
    read.join()
    assert found == ["".join(lines).encode()]


def test_a_full_disk_is_reported_for_each_line():
    with open("/dev/full", "w") as full, nonblocking_writer(full) as stream:  # noqa: PTH123 - a device
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                stream.write(LINE)


def test_lone_surrogates_are_escaped(tmp_path):
    with (tmp_path / "log").open("w") as file, nonblocking_writer(file) as stream:
        stream.write("\ud800 and on\n")
        assert not stream.isatty()
    assert (tmp_path / "log").read_bytes() == b"\\ud800 and on\n"


def test_the_final_flush_does_not_wait_for_a_slow_reader(pipe):
    """Such a reader would need minutes for everything."""
    reader, writer = pipe
    stream = NonblockingStream(writer.fileno())
    os.set_blocking(writer.fileno(), False)
    lines = [line.encode() for line in list(numbered())[: LINE_COUNT // 4]]
    for line in lines:
        stream.write(line)
    gone, read = threading.Event(), 0

    def read_slowly():
        nonlocal read
        while not gone.wait(0.1):
            read += len(os.read(reader.fileno(), 4096))

    reading_thread = threading.Thread(target=read_slowly)
    reading_thread.start()
    stream.flush_pending(0.5)
    gone.set()
    reading_thread.join()
    writer.close()
    assert read + len(reader.read()) < len(b"".join(lines))
