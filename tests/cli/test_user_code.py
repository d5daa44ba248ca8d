"""Code of users in a real worker: it may exit, raise or hang, and the others' runs go on."""

import json
import signal

import pytest

from tests.cli.conftest import saga_engine
from tests.cli.test_services import ended, serving, told

SAGAS = """
import re, sys, threading, time
from pydantic import BaseModel, field_validator
from saga_engine import Saga

def hang():
    re.match(r"(a|a)*$", "a" * 64 + "b")  # in C, for years, without a look at signals

def swallow():
    while True:
        try:
            while True:
                time.sleep(0.001)
        except BaseException:
            pass

WAYS = {"exit": sys.exit, "sleep": lambda: time.sleep(3600), "hang": hang, "swallow": swallow,
    "spin": lambda: [None for _ in iter(int, 1)],
    "thread": lambda: threading.Thread(target=time.sleep, args=(3600,)).start()}

class Given(BaseModel):
    way: str = ""
    when_read: str = ""

    @field_validator("when_read")
    @classmethod
    def read(cls, way: str) -> str:
        WAYS.get(way, str)()
        return way

shop = Saga("shop", version=1, input=Given)

@shop.step(command="shop.do", read_only=True)
def do(given: Given) -> dict:
    WAYS.get(given.way, str)()
    return {}
"""

SERVICES = """
from saga_engine import Participant

shop = Participant("shop")

@shop.command("shop.do")
async def do(command: dict) -> None:
    pass
"""
QUICK = {"mapping_timeout": "0.4", "code_limit": "3", "drain": "10", "poll": "0.02"}


@pytest.fixture
def urls(migrated_url, rabbitmq_url):
    """What a process of the engine needs."""
    return {"database_url": migrated_url, "broker_url": rabbitmq_url}


@pytest.fixture
async def shop(tmp_path, urls):
    """A directory with the modules, and a participant that serves them."""
    (tmp_path / "sagas.py").write_text(SAGAS)
    (tmp_path / "services.py").write_text(SERVICES)
    arguments = ("participant", "services", "--port", "0")
    async with serving(*arguments, cwd=tmp_path, **urls) as participant:
        await told(participant, "process.ready")
        yield tmp_path


def worker(shop, urls, **settings):
    arguments = ("worker", "sagas", "--port", "0")
    return serving(*arguments, cwd=shop, **{**urls, **QUICK, **settings})


async def started(urls, *more, **given):
    ran = await saga_engine("start", "shop", "--input", json.dumps(given), *more, **urls)
    assert ran.code == 0, ran
    return ran.out.split()[0]


async def shown(urls, run_id):
    return (await saga_engine("show", run_id, "--json", **urls)).json


@pytest.mark.parametrize("way", ["exit", "sleep", "spin"])
async def test_a_mapping_that_exits_or_does_not_return_costs_its_own_run_only(shop, urls, way):
    async with worker(shop, urls) as process:
        await told(process, "process.ready")
        broken = await started(urls, way=way)
        line = await told(process, "code.failed")
        assert (line["run_id"], line["saga"], line["step"]) == (broken, "shop", "do")
        assert (line["direction"], line["command"], line["function"]) == ("action", "shop.do", "do")
        problem = "raised SystemExit at" if way == "exit" else "did not return within 0.4 s"
        assert problem in line["problem"]
        [incident] = (await shown(urls, broken))["incidents"]
        assert incident["cause"] == "mapping_failed"
        assert f"{shop}/sagas.py:" in incident["message"]
        await started(urls, "--wait")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
