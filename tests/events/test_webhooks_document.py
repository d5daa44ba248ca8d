"""The example of docs/webhooks.md runs, and its receiver prints what the page shows."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from saga_engine.embedded.server_process import free_port
from saga_engine.settings import Settings
from tests.kit.command_line import (
    REPOSITORY,
    environment,
    read_log_until,
    running_command,
    saga_engine,
)

PAGE = (REPOSITORY / "docs" / "webhooks.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
[PRINTED] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSByZWNlaXZlciwgMzIgYnl0ZXMh"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of the page, with a port that is free."""
    port = str(free_port())
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.replace("8123", port))
    return tmp_path


@pytest.mark.long
async def test_the_receiver_of_the_page_prints_what_the_page_shows(
    directory, database_url, monkeypatch
):
    monkeypatch.setenv("ORDERS_WEBHOOK_SECRET", SECRET)
    assert (await saga_engine("check", "hooks", cwd=directory)).exit_code == 0
    migrated = await saga_engine("migrate", "--events", database_url=database_url)
    assert migrated.exit_code == 0, migrated.err
    receiver = await asyncio.create_subprocess_exec(
        *(sys.executable, "receiver.py"), cwd=directory, stdout=asyncio.subprocess.PIPE
    )
    assert receiver.stdout
    options = ("--port", str(free_port()))
    settings = {"database_url": database_url, "webhook_local_http": "true"}
    async with asyncio.timeout(60):
        projector = running_command("projector", "hooks", *options, cwd=directory, **settings)
        async with projector as process:
            await read_log_until(process, "process.ready")
            seller = await asyncio.create_subprocess_exec(
                *(sys.executable, "sell.py"),
                cwd=directory,
                env=environment(database_url=database_url),
            )
            assert await seller.wait() == 0
            lines = [(await receiver.stdout.readline()).decode() for _ in range(2)]
    assert "".join(lines) == PRINTED
    receiver.kill()
    await receiver.wait()


def test_the_page_names_settings_that_exist():
    for name in re.findall(r"SAGA_ENGINE_(\w+)", PAGE):
        assert name.lower() in Settings.model_fields, name


def test_the_page_has_the_defaults_of_the_settings():
    settings = Settings.model_fields
    assert settings["webhook_timeout"].default == 10
    assert settings["webhook_retry_delay"].default == 5
    assert settings["webhook_retry_delay_max"].default == 3600
    assert settings["webhook_retry_timeout"].default == 86_400
    assert settings["webhook_max_waiting_streams"].default == 1000
