"""A log that nobody reads makes nobody wait."""

import os
import threading

import pytest

from saga_engine.telemetry.nonblocking_stream import (
    MAX_BUFFER_BYTES,
    NonblockingStream,
    nonblocking_writer,
)

LINE = "a line of the log " * 5
ENOUGH = 2 * MAX_BUFFER_BYTES // len(LINE)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as writer:
        yield reader, writer


def numbered():
    return (f"{number} {LINE}\n" for number in range(ENOUGH))


def test_what_a_pipe_does_not_take_is_kept_up_to_a_bound_and_then_lost_with_an_error(pipe):
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


def test_who_reads_slowly_reads_everything_in_order(pipe):
    reader, writer = pipe
    found: list[bytes] = []
    lines = list(numbered())[: ENOUGH // 4]
    read = threading.Thread(target=lambda: found.append(reader.read(len("".join(lines)))))
    with nonblocking_writer(writer) as stream:
        stream.writelines(lines)
        read.start()
    read.join()
    assert found == ["".join(lines).encode()]


def test_a_file_that_refuses_is_told_and_a_later_line_is_tried_again():
    with open("/dev/full", "w") as full, nonblocking_writer(full) as stream:  # noqa: PTH123 - a device
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                stream.write(LINE)


def test_what_utf_8_cannot_say_is_written_all_the_same(tmp_path):
    with (tmp_path / "log").open("w") as file, nonblocking_writer(file) as stream:
        stream.write("\ud800 and on\n")
        assert not stream.isatty()
    assert (tmp_path / "log").read_bytes() == b"\\ud800 and on\n"


def test_leaving_is_over_before_a_slow_reader_has_everything(pipe):
    """Who waited for such a reader would wait for minutes."""
    reader, writer = pipe
    outlet = NonblockingStream(writer.fileno())
    os.set_blocking(writer.fileno(), False)
    lines = [line.encode() for line in list(numbered())[: ENOUGH // 4]]
    for line in lines:
        outlet.write(line)
    gone, read = threading.Event(), 0

    def sip():
        nonlocal read
        while not gone.wait(0.1):
            read += len(os.read(reader.fileno(), 4096))

    sipping = threading.Thread(target=sip)
    sipping.start()
    outlet.flush_pending(0.5)
    gone.set()
    sipping.join()
    writer.close()
    assert read + len(reader.read()) < len(b"".join(lines))
