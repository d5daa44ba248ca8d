"""Every block of docs/streams.md runs, and prints what the page says."""

import re
from pathlib import Path

import pytest

from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.command_line import REPOSITORY, read_log_until
from tests.kit.document_blocks import (
    Block,
    blocks_of,
    lines_of,
    output_of,
    run_script,
    save_files,
    service,
)
from tests.kit.feeds import wait_for_feed
from tests.kit.streams import stream_url

PAGE = (REPOSITORY / "docs" / "streams.md").read_text()
BLOCKS = blocks_of(PAGE)
EARLIER_BLOCKS = blocks_of((REPOSITORY / "docs" / "events.md").read_text())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of both pages."""
    save_files([*EARLIER_BLOCKS, *BLOCKS], tmp_path)
    return tmp_path


@pytest.fixture
def settings(rabbitmq, rabbitmq_url, kafka):
    """What the page exports, for the servers of the test."""
    return {
        "broker_url": rabbitmq_url,
        "broker_stream_url": stream_url(rabbitmq, rabbitmq_url),
        "kafka_bootstrap_servers": kafka.servers,
        "kafka_replication": "1",
    }


@pytest.mark.long
@pytest.mark.rabbitmq
async def test_what_the_page_runs_prints_what_the_page_shows(directory, database_url, settings):
    """In one test, because the first block prepares the database for both feeds."""
    prepare, to_stream, read_stream, to_kafka, read_kafka, compare = scripts()
    code, _, err = await run_script(directory, prepare.body, database_url)
    assert code == 0, err
    for start, read in ((to_stream, read_stream), (to_kafka, read_kafka)):
        *exports, projector = start.body.splitlines()
        assert {each.partition("=")[0] for each in exports} <= exports_of(settings)
        reader = read.body.removeprefix("python ").strip()
        shown = output_of(BLOCKS, read)
        feed = service(projector, cwd=directory, database_url=database_url, **settings)
        async with feed as process:
            await read_log_until(process, "feed.acquired")
            async with Database(database_url, Settings(), EVENT_DATABASE) as database:
                await wait_for_feed(database, 1, feed_name(reader))
            assert await lines_of(reader, directory, settings, len(shown)) == shown
    code, out, err = await run_script(directory, compare.body, database_url)
    assert (code, out) == (0, output_of(BLOCKS, compare)), err


def scripts() -> list[Block]:
    """The shell blocks, without those that bring what the test has: servers and packages."""
    brought = ("docker run", "apt-get install", "pip install")
    return [
        block
        for block in BLOCKS
        if block.language == "sh" and not any(each in block.body for each in brought)
    ]


def exports_of(settings: dict[str, str]) -> set[str]:
    return {f"export SAGA_ENGINE_{name.upper()}" for name in settings}


def feed_name(reader: str) -> str:
    """The name of the feed that a script reads: of `kafka_billing.py`, `orders-kafka`."""
    return f"orders-{reader.partition('_')[0]}"


def test_every_block_of_python_is_a_file():
    assert all(each.kind == "file" for each in BLOCKS if each.language == "python")
    assert len(BLOCKS) == PAGE.count("```") / 2


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
