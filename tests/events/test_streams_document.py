"""Every block of docs/streams.md runs, and prints what the page says."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from saga_engine.embedded.server_process import free_port
from saga_engine.settings import Settings
from tests.kit.command_line import REPOSITORY, environment, read_log_until, running_command
from tests.kit.document_blocks import Block, blocks_of, run_script, save_files
from tests.kit.servers import running_kafka

PAGE = (REPOSITORY / "docs" / "streams.md").read_text()
BLOCKS = blocks_of(PAGE)
EARLIER_BLOCKS = blocks_of((REPOSITORY / "docs" / "events.md").read_text())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of both pages."""
    save_files([*EARLIER_BLOCKS, *BLOCKS], tmp_path)
    return tmp_path


def block_with(text: str) -> Block:
    """The one block that has a text."""
    (found,) = [each for each in BLOCKS if text in each.body]
    return found


def output_of(block: Block) -> str:
    """The text block after another one."""
    following = BLOCKS[BLOCKS.index(block) + 1]
    assert following.language == "text"
    return following.body


async def test_the_consumer_of_the_page_reads_the_events_from_kafka(
    directory, database_url, kafka_is_installed
):
    check, start, consume = map(block_with, ("saga-engine check", " projector ", "python kafka"))
    exports = [each for each in check.body.splitlines() if each.startswith("export ")]
    *prepare, projector = start.body.splitlines()
    async with running_kafka() as server:
        settings = {"kafka_bootstrap_servers": server.servers, "kafka_replication": "1"}
        names = {each.partition("=")[0] for each in exports}
        assert names == {f"export SAGA_ENGINE_{name.upper()}" for name in settings}
        code, out, err = await run_script(
            directory, check.body.splitlines()[-1], database_url, **settings
        )
        assert (code, out) == (0, output_of(check)), err
        code, _, err = await run_script(directory, "\n".join(prepare), database_url, **settings)
        assert code == 0, err
        words = projector.removesuffix(" &").partition(" --port")[0].split()[1:]
        port = ("--port", str(free_port()))
        command = running_command(
            *words, *port, cwd=directory, database_url=database_url, **settings
        )
        async with command as process:
            await read_log_until(process, "feed.acquired")
            expected = output_of(consume)
            received = await lines_of("kafka_billing.py", directory, settings, len(expected))
    assert received == expected


async def lines_of(script: str, directory: Path, settings, length: int) -> str:
    """What a script prints until it has printed so much; then it is killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, script),
        env=environment(**settings),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    printed = ""
    async with asyncio.timeout(60):
        while len(printed) < length:
            line = (await process.stdout.readline()).decode()
            assert line, printed
            printed += line
    process.kill()
    await process.wait()
    return printed


def test_every_block_of_python_is_a_file():
    assert all(each.kind == "file" for each in BLOCKS if each.language == "python")
    assert len(BLOCKS) == PAGE.count("```") / 2


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
