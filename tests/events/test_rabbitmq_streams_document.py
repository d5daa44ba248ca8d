"""Every block of docs/rabbitmq-streams.md runs, and prints what the page says."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from saga_engine.embedded.server_process import free_port
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.command_line import REPOSITORY, environment, read_log_until, running_command
from tests.kit.document_blocks import Block, blocks_of, run_script, save_files
from tests.kit.feeds import wait_for_feed
from tests.kit.streams import stream_url

PAGE = (REPOSITORY / "docs" / "rabbitmq-streams.md").read_text()
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


@pytest.mark.rabbitmq
async def test_the_consumer_of_the_page_reads_the_events_from_a_stream(
    directory, database_url, rabbitmq, rabbitmq_url
):
    plugin, start, consume = map(
        block_with, ("rabbitmq-plugins", " projector stream_feed", "python stream")
    )
    assert "enable rabbitmq_stream" in plugin.body
    export, *prepare, projector = start.body.splitlines()
    assert export.startswith("export SAGA_ENGINE_BROKER_URL=")
    settings = {
        "broker_url": rabbitmq_url,
        "broker_stream_url": stream_url(rabbitmq, rabbitmq_url),
    }
    code, _, err = await run_script(directory, "\n".join(prepare), database_url)
    assert code == 0, err
    async with service(projector, directory, database_url, settings) as process:
        await read_log_until(process, "feed.acquired")
        async with Database(database_url, Settings(), EVENT_DATABASE) as database:
            await wait_for_feed(database, 1)
        expected = output_of(consume)
        received = await lines_of("stream_billing.py", directory, settings, len(expected))
    assert received == expected


def service(command: str, directory: Path, database_url: str, settings) -> Any:
    """The process that a command of the page starts in the background, on another port."""
    words = command.removesuffix(" &").partition(" --port")[0].split()[1:]
    port = ("--port", str(free_port()))
    return running_command(*words, *port, cwd=directory, database_url=database_url, **settings)


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
