"""Sagas and services whose code hangs, and the processes that run them."""

import asyncio
import json
from uuid import uuid4

from saga_engine.amqp.publisher import Publisher
from saga_engine.protocol.message import Message
from saga_engine.vocabulary import ConnectionRole
from tests.kit.command_line import (
    running_command,
)
from tests.kit.connections import open_connection

SAGAS = """
import itertools, re, sys, threading, time
from pydantic import BaseModel, field_validator
from saga_engine import Saga

def hang():
    any(itertools.repeat(False))  # in C, without end, without handling signals

def swallow():
    while True:
        try:
            while True:
                time.sleep(0.001)
        except BaseException:
            pass

def search():
    re.match(r"(a|a)*$", "a" * 64 + "b")  # in C, for years, but it handles signals

BEHAVIOURS = {"search": search, "exit": sys.exit, "hang": hang, "swallow": swallow,
    "sleep": lambda: time.sleep(3600), "spin": lambda: [None for _ in iter(int, 1)],
    "thread": lambda: threading.Thread(target=time.sleep, args=(3600,)).start()}

class Given(BaseModel):
    way: str = ""
    when_read: str = ""

    @field_validator("when_read")
    @classmethod
    def read(cls, way: str) -> str:
        BEHAVIOURS.get(way, str)()
        return way

shop = Saga("shop", version=1, input=Given)

@shop.step(command="shop.do", read_only=True)
def do(given: Given) -> dict:
    if given.way:
        print("called", flush=True)
    BEHAVIOURS.get(given.way, str)()
    return {}
"""


QUICK = {
    "mapping_timeout": "0.4",
    "mapping_hard_timeout": "3",
    "shutdown_timeout": "10",
    "poll_interval": "0.02",
}


def run_worker(shop, urls, **settings):
    """A worker with the sagas of a directory, which soon ends code that hangs."""
    arguments = ("worker", "sagas", "--port", "0")
    return running_command(*arguments, cwd=shop, **{**urls, **QUICK, **settings})


async def publish_starts(urls, inputs):
    """Publish starts in one write without waiting for an answer; *inputs* by run id."""
    bodies = [{"run_id": run_id, "saga": "shop", "input": each} for run_id, each in inputs.items()]
    messages = [
        Message(
            exchange="saga.requests",
            routing_key="start",
            body=json.dumps(body).encode(),
            message_id=uuid4().hex,
            type="start",
        )
        for body in bodies
    ]
    async with open_connection(urls["broker_url"], ConnectionRole.PUBLISH) as link:
        assert set(await Publisher(link).publish(messages)) == {"confirmed"}


async def wait_until_called(process):
    """Wait until a mapping that prints has been called."""
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"called\n"


HANGING_SERVICES = """
import asyncio, itertools, time
from saga_engine import Participant

shop = Participant("shop")

async def swallow():
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass

async def spin():
    while True:
        pass

async def hang():
    any(itertools.repeat(False))

BEHAVIOURS = {"thread": lambda: asyncio.to_thread(time.sleep, 3600), "swallow": swallow,
    "spin": spin, "hang": hang}

@shop.command("shop.do")
async def do(command: dict) -> None:
    print("called", flush=True)
    await BEHAVIOURS[command["way"]]()
"""

FORWARDING_SAGAS = SAGAS.replace(
    """    if given.way:
        print("called", flush=True)
    BEHAVIOURS.get(given.way, str)()
    return {}
""",
    """    return {"way": given.way}
""",
)
