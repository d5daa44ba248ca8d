"""Every block of docs/events.md runs, and prints what the page says."""

import asyncio
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import unquote

import pytest

from saga_engine import errors
from saga_engine.protocol.rejection import Rejected
from saga_engine.settings import Settings
from tests.kit.command_line import (
    REPOSITORY,
    environment,
    read_log_until,
)
from tests.kit.document_blocks import Block, blocks_of, run_script, save_files, scripts_of, service
from tests.kit.event_database import connected

PAGE = (REPOSITORY / "docs" / "events.md").read_text()
MAY_BE_UNNAMED = ("sh", "sql", "text")
NEEDS_ENGINE = ("saga-engine worker", "saga-engine start", "saga-engine participant")


BLOCKS = blocks_of(PAGE)


def needs_engine(block: Block) -> bool:
    return any(each in block.body for each in NEEDS_ENGINE)


def shell_blocks() -> Iterator[tuple[str, str]]:
    """The commands that run in the empty directory, and what they print."""
    for script, expected in scripts_of(BLOCKS):
        if not any(each in script for each in (*NEEDS_ENGINE, "pip install")):
            yield script, expected


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of the page."""
    save_files(BLOCKS, tmp_path)
    return tmp_path


@pytest.mark.long
async def test_what_the_page_runs_prints_what_the_page_shows(directory, database_url):
    scripts = list(shell_blocks())
    assert len(scripts) >= 5
    async with AsyncExitStack() as processes:
        for script, expected in scripts:
            started = [each for each in script.splitlines() if each.endswith(" &")]
            commands = [each for each in script.splitlines() if each not in started]
            code, out, err = await run_script(directory, "\n".join(commands), database_url)
            assert (code, out) == (0, expected), err
            for command in started:
                process = service(command, cwd=directory, database_url=database_url)
                await read_log_until(await processes.enter_async_context(process), "process.ready")


@pytest.mark.long
async def test_the_tables_of_the_page_are_filled_again(directory, database_url):
    (statements,) = [block.body for block in BLOCKS if block.language == "sql"]
    projections = "saga-engine projector projections --port 9466 &"
    prepare = "saga-engine migrate --events\npython projections.py\npython place.py"
    assert (await run_script(directory, prepare, database_url))[0] == 0
    reports = []
    async with connected(database_url) as connection:
        for order in ("o-3", "o-4"):
            process = service(projections, cwd=directory, database_url=database_url)
            async with process as started:
                await read_log_until(started, "process.ready")
                report = (directory / "report.py").read_text().replace('"o-3"', f'"{order}"')
                (directory / "report.py").write_text(report)
                code, out, err = await run_script(directory, "python report.py", database_url)
                assert code == 0, err
                reports.append(out.splitlines())
            await connection.execute(statements)
    assert reports[0][-2:] == ["ivo 1 500", "mara 1 1200"]
    assert reports[1][-2:] == ["ivo 2 1000", "mara 1 1200"]


@pytest.mark.long
async def test_the_consumer_of_the_page_receives_the_events_of_its_feed(
    directory, database_url, broker_url
):
    urls = {"database_url": database_url, "broker_url": broker_url}
    prepare = "saga-engine migrate --events\npython place.py"
    assert (await run_script(directory, prepare, database_url))[0] == 0
    consumer = await asyncio.create_subprocess_exec(
        *(sys.executable, "pika_billing.py"),
        env=environment(**urls),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
    )
    assert consumer.stdout
    async with asyncio.timeout(60):
        assert await consumer.stdout.readline() == b"The queue is bound.\n"
        command = "saga-engine projector feeds"
        async with service(command, cwd=directory, **urls) as process:
            await read_log_until(process, "feed.acquired")
            line = (await consumer.stdout.readline()).decode()
    assert line.startswith("order-o-1 {")
    consumer.kill()
    await consumer.wait()


@pytest.mark.long
async def test_every_script_of_the_page_runs_again(directory, database_url):
    scripts = ("projections.py", "place.py", "invoice.py")
    commands = [f"python {each}" for each in scripts for _ in range(2)]
    script = "\n".join(["saga-engine migrate --events", *commands])
    code, out, err = await run_script(directory, script, database_url)
    assert code == 0, err
    assert out.count("order_exists") == 4  # in the first run of place.py 1, in the second runs 3


async def test_the_tests_that_the_page_shows_pass(directory, database_url):
    code, out, err = await run_script(
        directory, "python -m pytest -q -p no:cacheprovider", database_url
    )
    assert code == 0, out + err
    assert "3 passed" in out


def has_data(line: str) -> bool:
    """Whether the directory exists that is in the URL which postgres.py prints."""
    return Path(unquote(line.partition("host=")[2].partition("&")[0].strip(" '\n"))).exists()


@pytest.mark.parametrize(
    "stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
async def test_the_database_to_try_it_starts_and_leaves_nothing(directory, stop):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "postgres.py"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode()
        assert (await run_script(directory, f"{line}saga-engine migrate --events", ""))[0] == 0
        assert has_data(line)
        process.send_signal(stop)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert not has_data(line)


async def test_the_broker_to_try_it_starts_and_ends(directory):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "broker.py"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode()
        command = f"{line}saga-engine topology --declare"
        assert (await run_script(directory, command, ""))[0] == 0
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.long
async def test_the_shop_of_the_page_prints_what_the_page_shows(database_url, broker_url):
    urls = {"database_url": database_url, "broker_url": broker_url}
    prepare, start = [block for block in BLOCKS if needs_engine(block)]
    shown = BLOCKS[BLOCKS.index(start) + 1]
    async with AsyncExitStack() as processes:
        for command in prepare.body.splitlines():
            if command.endswith(" &"):
                process = await processes.enter_async_context(service(command, **urls))
                await read_log_until(process, "process.ready")
            elif not command.startswith("export SAGA_ENGINE_BROKER_URL="):
                code, _, err = await run_script(REPOSITORY, command, database_url)
                assert code == 0, err
        script = f"export SAGA_ENGINE_BROKER_URL='{broker_url}'\n{start.body}"
        _, out, err = await run_script(REPOSITORY, script, database_url)
    assert "completed" in out, err
    assert (shown.language, out[-len(shown.body) :]) == ("text", shown.body), err


def test_an_excerpt_is_in_its_file():
    excerpts = [block for block in BLOCKS if block.kind == "excerpt"]
    assert excerpts
    for block in excerpts:
        assert block.body.strip() in (REPOSITORY / str(block.name)).read_text(), block.name


def test_every_block_of_python_is_a_file_or_an_excerpt():
    assert all(block.name for block in BLOCKS if block.language not in MAY_BE_UNNAMED)
    assert len(BLOCKS) == PAGE.count("```") / 2


def test_every_setting_and_error_that_the_page_names_exists():
    named = re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE)
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Errors")[1], re.MULTILINE)
    assert len(rows) > 5
    assert all(hasattr(errors, name) or name == Rejected.__name__ for name in rows)
