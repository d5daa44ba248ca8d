"""Every block of docs/consumers.md runs, and prints what the page says."""

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from saga_engine.settings import Settings
from tests.kit.command_line import REPOSITORY, read_log_until, running_command
from tests.kit.document_blocks import blocks_of, run_script, save_files
from tests.kit.event_database import connected
from tests.kit.programs import wait_until_true

PAGE = (REPOSITORY / "docs" / "consumers.md").read_text()
BLOCKS = blocks_of(PAGE)
ONE_BROKER_IS_LONG = pytest.mark.parametrize(
    "broker_url",
    [
        pytest.param("development", marks=pytest.mark.long),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ],
    indirect=True,
)


def steps() -> Iterator[tuple[str, str, str]]:
    """The blocks that are executed, in their order, and what each one prints."""
    for block, following in zip(BLOCKS, [*BLOCKS[1:], None], strict=True):
        if block.language in ("sh", "sql"):
            is_shown = following is not None and following.language == "text"
            yield block.language, block.body, following.body if is_shown and following else ""


@ONE_BROKER_IS_LONG
async def test_what_the_page_runs_prints_what_the_page_shows(tmp_path, database_url, broker_url):
    save_files(BLOCKS, tmp_path)
    urls = {"database_url": database_url, "broker_url": broker_url}
    async with AsyncExitStack() as processes, connected(database_url) as connection:
        for language, body, expected in steps():
            if language == "sql":

                async def shown(statement: str = body, expected: str = expected) -> bool:
                    rows = await connection.fetch(statement)
                    return expected == "".join(f"{' '.join(map(str, row))}\n" for row in rows)

                await wait_until_true(shown)
                continue
            commands = [each for each in body.splitlines() if not each.endswith(" &")]
            for each in body.splitlines():
                if each.endswith(" &"):
                    words = each.partition(" --port")[0].split()[1:]
                    process = running_command(*words, "--port", "0", cwd=tmp_path, **urls)
                    started = await processes.enter_async_context(process)
                    await read_log_until(started, "process.ready")
            code, out, err = await run_script(tmp_path, "\n".join(commands), database_url)
            assert (code, out) == (0, expected), err


def test_an_excerpt_is_in_its_file():
    for block in BLOCKS:
        if block.kind == "excerpt":
            assert block.body.strip() in (REPOSITORY / str(block.name)).read_text(), block.name


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    assert all(block.name for block in BLOCKS if block.language == "python")
