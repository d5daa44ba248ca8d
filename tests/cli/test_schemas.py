"""Schemas are registered when a process starts, and `check` finds a break before it does."""

import asyncio
import json

import pytest

from saga_engine.events import Append, EventData, Events
from saga_engine.schemas import registry
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.command_line import read_log_until, running_command, saga_engine
from tests.kit.declared_schemas import declared_json
from tests.kit.event_database import wait_for_waiting_append
from tests.kit.schema_pairs import INTEGER, record

ORDERS = """
from typing import Any
from pydantic import BaseModel
from saga_engine import Saga
from saga_engine.events import Aggregate, Feed

class Placed(BaseModel):
    customer: str
    {fields}

class Order(BaseModel):
    customer: str = ""

orders = Aggregate("order", state=Order)

@orders.event("order-placed", version={version})
def placed(order: Order, event: Placed) -> Order:
    return order

{upcast}

feed = Feed("orders", {selected})
feed.to_exchange()

class Input(BaseModel):
    name: str

class Greet(BaseModel):
    name: str

class Greeted(BaseModel):
    {reply}

saga = Saga("greet", version=1, input=Input)

@saga.step(command="greet", reply=Greeted, read_only=True)
def greet(order: Input) -> Greet:
    return Greet(name=order.name)
"""
UPCAST = """
@orders.upcast("order-placed", version=1)
def add_currency(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"currency": "EUR"}
"""


@pytest.fixture
def project(tmp_path, migrated_url):
    """A directory in which `shop.py` is written, and commands run."""

    class Project:
        def write(self, *, fields="", selected="types=[Placed]", **others):
            others = {"version": 1, "upcast": "", "reply": "text: str", **others}
            values = {"fields": fields, "selected": selected, **others}
            (tmp_path / "shop.py").write_text(ORDERS.format(**values))

        async def __call__(self, *words, **more):
            urls = {"database_url": migrated_url, **more}
            return await saga_engine("schemas", *words, cwd=tmp_path, **urls)

        async def load(self, program, broker_url):
            """Run a process until it is ready, which registers what it has loaded."""
            urls = {"database_url": migrated_url, "broker_url": broker_url}
            command = (program, "shop", "--port", "0")
            async with running_command(*command, cwd=tmp_path, **urls) as process:
                return await read_log_until(process, "process.ready")

        async def append(self, count, version=1):
            async with Events(migrated_url, settings=Settings()) as events:
                stored = [EventData("order-placed", version, {"customer": "mara"})] * count
                await events.append(Append("order-o-1", stored))

    project = Project()
    project.write()
    return project


async def test_a_projector_registers_events_and_a_worker_commands_and_replies(
    project, development_broker
):
    ran = await project("list")
    assert "No process has registered a schema." in ran.err
    await project.load("projector", development_broker.url)
    await project.load("worker", development_broker.url)
    listed = (await project("list", "--json")).json["schemas"]
    assert [(each["subject"], each["kind"], each["compatibility"]) for each in listed] == [
        ("greet/greet", "command", "forward"),
        ("greet/greet/reply", "reply", "backward"),
        ("order-placed", "event", "backward_transitive"),
    ]
    ran = await project("list")
    assert ran.out.splitlines()[-1].startswith("order-placed\tevent\tbackward_transitive\t1\t1\t")


async def test_a_break_is_named_and_exits_8(project, development_broker):
    await project.load("projector", development_broker.url)
    await project.append(2)
    project.write(fields="currency: str")
    ran = await project("check", "shop")
    assert (ran.exit_code, ran.out) == (8, "")
    assert "order-placed version 1 cannot read schema 1" in ran.err
    assert "`currency` is required" in ran.err
    assert "2 events of schema 1" in ran.err
    assert "shop.py:16" in ran.err
    document = (await project("check", "shop", "--json")).json
    assert (document["compatible"], len(document["problems"])) == (False, 1)
    assert document["problems"][0]["fix"].startswith("Give it a default, or raise the version")


async def test_a_class_that_nothing_describes_is_not_judged_and_exits_8(project):
    method = """
    @classmethod
    def __get_pydantic_json_schema__(cls, *_):
        raise ValueError
    """
    project.write(fields=method)
    ran = await project("check", "shop")
    assert ran.exit_code == 8
    assert "order-placed version 1 is not judged: its class has no JSON Schema." in ran.err
    assert "shop.py:" in ran.err
    assert not (await project("check", "shop", "--json")).json["compatible"]


async def test_a_projector_does_not_start_with_a_break(
    project, development_broker, tmp_path, migrated_url
):
    await project.load("projector", development_broker.url)
    await project.append(1)
    project.write(fields="currency: str")
    urls = {"database_url": migrated_url, "broker_url": development_broker.url}
    ran = await saga_engine("projector", "shop", "--port", "0", cwd=tmp_path, **urls)
    assert ran.exit_code == 2
    assert "cannot read schema 1" in ran.err


FEED_OF_STREAMS = """
from saga_engine.events import Feed
{imported}

published = Feed("published", streams=["order-*"])
published.to_exchange()
"""


@pytest.mark.parametrize("modules", [("importing",), ("alone", "shop")])
async def test_a_projector_judges_the_aggregates_of_its_modules_as_check_does(
    project, development_broker, tmp_path, migrated_url, modules
):
    """A feed of whole streams names no class, and neither does a module of aggregates."""
    for name, imported in (("importing", "from shop import orders"), ("alone", "")):
        (tmp_path / f"{name}.py").write_text(FEED_OF_STREAMS.format(imported=imported))
    project.write(selected='streams=["order-*"]')
    urls = {"database_url": migrated_url, "broker_url": development_broker.url}
    command = ("projector", *modules, "--port", "0")
    async with running_command(*command, cwd=tmp_path, **urls) as process:
        await read_log_until(process, "process.ready")
    assert "order-placed" in (await project("list")).out
    await project.append(1)
    project.write(fields="currency: str", selected='streams=["order-*"]')
    ran = await saga_engine(*command, cwd=tmp_path, **urls)
    assert ran.exit_code == 2
    assert (
        ran.err.splitlines()[-1].removeprefix("saga-engine: ")
        in (await project("check", modules[-1])).err
    )


@pytest.mark.usefixtures("project")
async def test_a_projector_of_aggregates_alone_names_the_command_that_registers_them(
    tmp_path, migrated_url
):
    (tmp_path / "aggregates.py").write_text("from shop import orders")
    ran = await saga_engine("projector", "aggregates", cwd=tmp_path, database_url=migrated_url)
    assert ran.exit_code == 2
    assert "aggregates declares no Projection or Feed" in ran.err
    assert "saga-engine schemas register MODULE" in ran.err


async def test_an_upcast_makes_a_break_legal(project, development_broker):
    await project.load("projector", development_broker.url)
    await project.append(1)
    project.write(fields="currency: str", version=2, upcast=UPCAST)
    ran = await project("check", "shop")
    assert ran.exit_code == 0, ran.err
    assert "order-placed version 2: compatible with 1 earlier, not registered yet" in ran.out
    project.write(fields="currency: int", version=2, upcast=UPCAST)
    ran = await project("check", "shop")
    assert ran.exit_code == 8
    assert (
        "an example of version 1 is not read: its data does not fit Placed (currency: int_parsing);"
        " 1 event of version 1 is stored. Correct add_currency ("
    ) in ran.err


async def test_a_missing_upcast_is_named_and_nothing_is_blamed_that_does_not_exist(project):
    """With and without a registered schema."""
    await project.append(1)
    project.write(fields="currency: str")
    ran = await project("check", "shop")
    assert "a new field needs a default. Or raise the version to 2" in ran.err
    project.write()
    await project("register", "shop")
    project.write(fields="currency: str", version=2)
    ran = await project("check", "shop")
    assert ran.exit_code == 8
    assert "no upcast from version 1 is declared" in ran.err
    assert 'Declare one: @....upcast("order-placed", version=1).' in ran.err


async def test_a_default_makes_a_field_legal(project, development_broker):
    await project.load("projector", development_broker.url)
    await project.append(1)
    project.write(fields='currency: str = "EUR"')
    ran = await project("check", "shop")
    assert (ran.exit_code, ran.err) == (0, "")
    await project.load("projector", development_broker.url)
    old, new = 1, 2
    ran = await project("diff", "order-placed", str(old), str(new))
    assert ran.out.splitlines() == [
        "backward: schema 2 (version 1) reads what schema 1 (version 1) has written",
        "forward: schema 1 (version 1) reads what schema 2 (version 1) has written",
    ]


async def test_a_broken_reply_is_reported_and_stops_no_worker(
    project, development_broker, tmp_path, migrated_url
):
    await project.load("worker", development_broker.url)
    project.write(reply="text: str\n    language: str")
    urls = {"database_url": migrated_url, "broker_url": development_broker.url}
    async with running_command("worker", "shop", "--port", "0", cwd=tmp_path, **urls) as process:
        line = await read_log_until(process, "schema.broken")
        await read_log_until(process, "process.ready")
    assert line["subject"] == "greet/greet/reply"
    assert "`language` is required" in line["problem"]
    ran = await project("check", "shop")
    assert ran.exit_code == 8
    assert (await project("diff", "greet/greet/reply", "2", "3", "--json")).json["backward"] == [
        {
            "path": "language",
            "problem": "`language` is required in schema 3 (version 1) and is absent in schema 2"
            " (version 1)",
        }
    ]


async def test_a_worker_starts_although_a_reply_has_too_many_schemas(
    project, development_broker, tmp_path, migrated_url
):
    urls = {"database_url": migrated_url, "broker_url": development_broker.url}
    for field in ("text: str", "text: str | None", "text: str | int"):
        project.write(reply=field)
        command = ("worker", "shop", "--port", "0")
        limited = {**urls, "max_schema_versions": "2"}
        async with running_command(*command, cwd=tmp_path, **limited) as process:
            if field == "text: str | int":
                line = await read_log_until(process, "schema.broken")
                assert "more than 2 registered schemas" in line["problem"]
            await read_log_until(process, "process.ready")


async def test_of_two_registrations_at_once_the_one_that_breaks_is_refused(project, migrated_url):
    patient = Settings(database_transaction_timeout=60)
    other = declared_json(record({"customer": INTEGER}, "customer"))
    await project.append(1)
    async with (
        asyncio.TaskGroup() as tasks,
        Database(migrated_url, patient) as database,
        database.transaction() as tx,
    ):
        await registry.lock_subjects(tx, [other])
        await registry.insert(tx, [other], Settings())
        running = tasks.create_task(project("register", "shop"))
        await wait_for_waiting_append(migrated_url)
    ran = running.result()
    assert ran.exit_code == 8, ran.out
    assert "order-placed version 1 cannot read schema 1" in ran.err
    listed = (await project("list", "--json")).json["schemas"]
    assert [each["subject"] for each in listed] == ["order-placed"]


async def test_a_mode_is_chosen(project, development_broker):
    await project.load("worker", development_broker.url)
    ran = await project("set", "greet/greet/reply", "--compatibility", "none")
    assert ran.out == "greet/greet/reply is checked for none compatibility.\n"
    project.write(reply="text: int")
    assert (await project("check", "shop")).exit_code == 0
    ran = await project("set", "other", "--compatibility", "full")
    assert (ran.exit_code, ran.out) == (3, "")
    done = (await project("set", "greet/greet", "--compatibility", "full", "--json")).json
    assert (done["subject"], done["compatibility"]) == ("greet/greet", "full")


async def test_a_schema_is_shown_and_exported(project, development_broker):
    await project.load("projector", development_broker.url)
    shown = (await project("show", "order-placed", "--json")).json["schema"]
    assert (shown["id"], shown["version"], len(shown["fingerprint"])) == (1, 1, 64)
    assert shown["writes"]["required"] == ["customer"]
    ran = await project("show", "order-placed")
    assert "backward_transitive" in ran.out
    exported = json.loads((await project("export", "order-placed", "--id", "1")).out)
    assert exported == shown["writes"]
    ran = await project("export", "order-placed", "--id", "9")
    assert (ran.exit_code, ran.err) == (
        3,
        "saga-engine: order-placed has no schema 9. It has: 1.\n",
    )
    ran = await project("show", "other")
    assert ran.exit_code == 3
    assert "No schema 'other' is registered" in ran.err


async def test_a_break_of_consumers_in_avro_exits_8_with_the_option_alone(project):
    """A default that Avro has not: JSON readers are as they were."""
    project.write()
    assert (await project("register", "shop")).exit_code == 0
    await project.append(2)
    project.write(fields="tags: list[str] = ['new']")
    assert (await project("check", "shop")).exit_code == 0
    checked = await project("check", "shop", "--avro")
    assert checked.exit_code == 8
    assert (
        "order-placed version 1 cannot read schema 3: Avro's checker names tags (/fields/1);"
        " 2 events of schema 3 are stored. Give a new field a default that Avro has, or raise the"
        " version to 2 and declare an upcast from version 1."
    ) in checked.err
    project.write(fields="tags: list[str] = []")
    assert (await project("check", "shop", "--avro")).exit_code == 0
    project.write(fields="tags: list[str] = ['new']", version=2, upcast=UPCAST)
    assert (await project("check", "shop", "--avro")).exit_code == 0
    project.write(fields="tags: list[int] | list[str] = []")
    found = (await project("check", "shop", "--avro", "--json")).json
    assert not found["compatible"]
    (problem,) = found["problems"]
    assert "order-placed has no Avro schema: `tags` is a union" in problem["problem"]
