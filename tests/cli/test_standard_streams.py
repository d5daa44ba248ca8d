"""The messages and exit codes of commands whose streams are full, closed or of another encoding."""

import asyncio
from contextlib import suppress

import pytest

from saga_engine.cli import standard_streams
from saga_engine.embedded.server_process import free_port
from tests.kit.bash import run_in_bash
from tests.kit.command_line import REPOSITORY, environment
from tests.kit.fork_server import COMMAND


def test_only_exit_code_0_is_reported_as_success():
    full = OSError(28, "No space left on device")
    assert "The command itself succeeded" in str(standard_streams.output_error(full, 0))
    assert "The command itself succeeded" not in str(standard_streams.output_error(full, 7))


FULL = "The output cannot be written: No space left on device"


CLOSED = "The output cannot be written: Bad file descriptor"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("se config show >/dev/full", 10, FULL + ". The command itself succeeded."),
        pytest.param("se config show --json >/dev/full", 10, FULL, marks=pytest.mark.long),
        pytest.param("se --help >/dev/full", 10, FULL, marks=pytest.mark.long),
        ("se config show >&-", 10, CLOSED),
        pytest.param("se topology --policy >&-", 10, CLOSED, marks=pytest.mark.long),
        pytest.param(
            "se list >&-", 2, "SAGA_ENGINE_DATABASE_URL is not set", marks=pytest.mark.long
        ),
        ("se start parcel --input - <&-", 2, "--input: stdin cannot be read: Bad file descriptor"),
        ("se start parcel --input @/", 2, "--input: / cannot be read: Is a directory"),
        ("se start parcel --input @/dev/zero", 2, "--input: /dev/zero cannot be read: it has more"),
        pytest.param(
            "se start parcel --input @/proc/self/mem",
            2,
            "--input: /proc/self/mem cannot be read",
            marks=pytest.mark.long,
        ),
        ("mkdir /tmp/gone.$$; cd /tmp/gone.$$; rmdir /tmp/gone.$$; se worker x", 2, "_URL is not"),
    ],
)
async def test_an_unusable_output_or_input_is_a_sentence(script, code, words):
    exit_code, _, err = await run_in_bash(script)
    assert (exit_code, words in err, len(err.splitlines())) == (code, True, 1), err


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("se config show 2>&-", 0),
        pytest.param("se config show 2>/dev/full", 0, marks=pytest.mark.long),
        pytest.param("se list 2>&-", 2, marks=pytest.mark.long),
        ("se list 2>/dev/full", 2),
        ("se config show | true; exit ${PIPESTATUS[0]}", 0),
        pytest.param("se topology | true; exit ${PIPESTATUS[0]}", 0, marks=pytest.mark.long),
        pytest.param("se --help | true; exit ${PIPESTATUS[0]}", 0, marks=pytest.mark.long),
        ("se config show <&- >/dev/null 2>&-", 0),
    ],
)
async def test_lost_messages_do_not_change_the_exit_code(script, code):
    exit_code, _, err = await run_in_bash(script)
    assert (exit_code, err) == (code, "")


async def test_a_worker_serves_with_every_stream_closed(migrated_url, rabbitmq_url):
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", f"exec {COMMAND} worker examples.place_order.sagas <&- >&- 2>&-"),
        env=environment(database_url=migrated_url, broker_url=rabbitmq_url, http_port=str(port)),
        cwd=REPOSITORY,
    )
    try:
        await _wait_until_ready(port, process)
    finally:
        if process.returncode is None:
            process.terminate()
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def _wait_until_ready(port, process):
    async with asyncio.timeout(90):
        while process.returncode is None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await process.wait()
                continue
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if b" 200 " in answer.split(b"\r\n")[0]:
                return
    raise AssertionError(process.returncode)
