"""Every block of docs/consumers.md runs, and prints what the page says."""

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.command_line import REPOSITORY, read_log_until
from tests.kit.document_blocks import Block, blocks_of, run_script, save_files, scripts_of, service
from tests.kit.event_database import connected
from tests.kit.feeds import wait_for_feed
from tests.kit.programs import wait_until_true

PAGE = (REPOSITORY / "docs" / "consumers.md").read_text()
KAFKA = "## From Kafka\n"
BEFORE, _, FROM_KAFKA = PAGE.partition(KAFKA)
FROM_KAFKA, _, AFTER = FROM_KAFKA.partition("\n## ")
BLOCKS = blocks_of(PAGE)
KAFKA_BLOCKS = blocks_of(FROM_KAFKA)


@pytest.mark.long
async def test_what_the_page_runs_prints_what_the_page_shows(tmp_path, database_url, broker_url):
    save_files(BLOCKS, tmp_path)
    urls = {"database_url": database_url, "broker_url": broker_url}
    await run_page(blocks_of(BEFORE + AFTER), tmp_path, urls, "SELECT count(*) = 3 FROM invoice")


@pytest.mark.long
async def test_the_block_from_kafka_goes_on_from_the_page_of_streams(tmp_path, database_url, kafka):
    for page in ("events.md", "streams.md"):
        save_files(blocks_of((REPOSITORY / "docs" / page).read_text()), tmp_path)
    save_files(KAFKA_BLOCKS, tmp_path)
    settings = {
        "database_url": database_url,
        "kafka_bootstrap_servers": kafka.servers,
        "kafka_replication": "1",
    }
    prepare = "saga-engine migrate --events\npython place.py"
    code, _, err = await run_script(tmp_path, prepare, database_url)
    assert code == 0, err
    command = "saga-engine projector kafka_feed"
    async with service(command, cwd=tmp_path, **settings) as process:
        await read_log_until(process, "feed.acquired")
        async with Database(database_url, Settings(), EVENT_DATABASE) as database:
            await wait_for_feed(database, 2, "orders-kafka")
        await run_page(KAFKA_BLOCKS, tmp_path, settings, "SELECT count(*) = 1 FROM topic_invoice")


async def run_page(
    blocks: Sequence[Block], directory: Path, settings: dict[str, str], consumed: str
) -> None:
    """Run the blocks in their order; the last one when a query says that all is consumed."""
    scripts = [each for each in scripts_of(blocks) if each[0]]
    async with AsyncExitStack() as processes, connected(settings["database_url"]) as connection:

        async def is_consumed() -> bool:
            return bool(await connection.fetchval(consumed))

        for script, expected in scripts:
            if (script, expected) == scripts[-1]:
                await wait_until_true(is_consumed)
            started = [each for each in script.splitlines() if each.endswith(" &")]
            for each in started:
                process = service(each, cwd=directory, **settings)
                await read_log_until(await processes.enter_async_context(process), "process.ready")
            commands = [each for each in script.splitlines() if each not in started]
            code, out, err = await run_script(
                directory, "\n".join(commands), settings["database_url"]
            )
            assert (code, out) == (0, expected), err


def test_an_excerpt_is_in_its_file():
    for block in BLOCKS:
        if block.kind == "excerpt":
            assert block.body.strip() in (REPOSITORY / str(block.name)).read_text(), block.name


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    assert all(block.name for block in BLOCKS if block.language == "python")
