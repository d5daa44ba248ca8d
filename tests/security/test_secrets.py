"""No payload, password or key is printed, in success or in failure."""

import asyncio
import json
import urllib.error
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from pamqp.commands import Basic
from sqlalchemy.engine import make_url

from saga_engine import Client
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.server_process import free_port
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store.migrate import upgrade
from tests.kit.command_line import environment, saga_engine
from tests.kit.connections import raw_channel
from tests.kit.programs import running_program, wait_until_true
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.secret_leaks import find_leaks, find_leaks_in_files, make_canary

ORDERS = {
    "well": {},
    "declined": {"card": "declined"},
    "flaky": {"card": "flaky"},
    "unstorable": {"card": "unstorable"},
    "explodes": {"stock": "explodes"},
}


def test_a_secret_is_found_in_each_notation():
    secret, key = make_canary("x"), bytes(range(120, 152))
    for text in (f"a {secret} b", secret.encode().hex(), json.dumps({"x": secret})):
        assert find_leaks({"log": f"fine\n{text}"}, [secret]) == [f"log:2: {text}"]
    for text in (repr(key), key.hex()):
        assert find_leaks({"log": text}, [key])
    assert not find_leaks({"log": "canaryx"}, [secret, key])


@pytest.mark.parametrize("before", [b"", b"1", b"12", b"123"])
def test_a_secret_is_found_in_base64(before):
    secret = make_canary("x")
    for encode in (b64encode, urlsafe_b64encode):
        assert find_leaks({"log": encode(before + secret.encode() + b"more").decode()}, [secret])


class Scene:
    """The programs at their most talkative, what was planted and what they printed."""

    def __init__(self, server, place, printed: Path, rabbitmq: RabbitMQServer):
        self.rabbitmq = rabbitmq
        self.server, self.place, self.printed = server, place, printed
        self.payload, self.key = make_canary("payload"), make_canary("key")
        self.broker_password, self.query = make_canary("broker"), make_canary("query")
        self.forbidden_key, self.poison = make_canary("forbidden"), make_canary("poison")
        self.database_url = server.url + f"?passfile={self.query}"
        self.planted = [
            *(self.payload, self.key, self.broker_password, self.query),
            *(self.forbidden_key, self.poison, make_url(server.url).password),
        ]
        self.ports = {"worker": free_port(), "participant": free_port()}

    @property
    def broker_url(self):
        return self.place.replace("guest:guest", f"talker:{self.broker_password}")

    def surroundings(self, name, log_format):
        settings = environment(
            database_url=self.database_url,
            broker_url=self.broker_url,
            log_level="debug",
            log_format=log_format,
            http_port=str(self.ports[name]),
            database_transaction_timeout="5",
        )
        return settings | {"SHOP_DATABASE_URL": self.server.url}

    def log(self, name):
        return self.printed / name

    async def says(self, name, words):
        return words in self.log(name).read_text()

    async def look(self, moment):
        """Keep what the HTTP ports show now."""
        for name, port in self.ports.items():
            for path in ("metrics", "readyz?verbose", "readyz", "nowhere"):
                shown = await asyncio.to_thread(fetched, f"http://127.0.0.1:{port}/{path}")
                self.log(f"{moment}-{name}-{path.replace('?', '-')}").write_text(shown)

    async def command(self, *arguments, **settings):
        """Keep the output of a command; its data is for the operator who requests it."""
        given = {"broker_url": self.broker_url, "database_url": self.database_url} | settings
        ran = await saga_engine(*arguments, **given)
        self.keep("commands", f"{arguments[0]} {ran.exit_code}\n{ran.err}")
        return ran

    def keep(self, name, text):
        with self.log(name).open("a") as log:
            log.write(text)

    async def execute(self, statement, *values):
        url = make_url(self.server.url)
        connection = await asyncpg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            database="postgres",
        )
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()


def fetched(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@pytest.fixture
async def scene(rabbitmq, rabbitmq_url, tmp_path):
    async with PostgresServer(use_tcp=True) as server:
        await upgrade(server.url)
        scene = Scene(server, rabbitmq_url, tmp_path, rabbitmq)
        vhost = rabbitmq_url.rsplit("/", 1)[1]
        await rabbitmq.rabbitmqctl("add_user", "talker", scene.broker_password)
        await rabbitmq.rabbitmqctl("set_permissions", "-p", vhost, "talker", ".*", ".*", ".*")
        async with (
            running_program(
                *("worker", "tests.security.buy_saga"),
                environment=scene.surroundings("worker", "json"),
                log=scene.log("worker"),
            ),
            running_program(
                *("participant", "tests.security.stock", "tests.security.payments"),
                environment=scene.surroundings("participant", "console"),
                log=scene.log("participant"),
            ),
        ):
            for name in scene.ports:
                await wait_until_true(partial(scene.says, name, "process.ready"))
            yield scene
        await rabbitmq.rabbitmqctl("delete_user", "talker")


@pytest.mark.rabbitmq
@pytest.mark.timeout(300)
async def test_no_secret_is_printed_in_any_failure(scene):
    await runs_of_every_kind(scene)
    await poison(scene)
    await a_constraint_that_quotes_its_row(scene)
    await database_is_unavailable(scene)
    await the_broker_refuses_the_password(scene)
    await commands(scene)
    [row] = await scene.execute("SELECT token_key FROM saga_engine.engine_identity")
    assert find_leaks_in_files(scene.printed, [*scene.planted, bytes(row["token_key"])]) == []


async def runs_of_every_kind(scene):
    settings = Settings(broker_url=scene.broker_url)
    async with Client(settings=settings) as client:
        for name, order in ORDERS.items():
            given = {**order, "card_number": scene.payload}
            handle = await client.start("buy", given, key=f"{scene.key}{name}")
            ending = await client.result(handle.run_id, timeout=60)
            assert ending.status == ("completed" if name == "well" else "compensated"), name
        await client.start("buy", {"mapping": "raises", "card_number": scene.payload})
        await wait_until_true(partial(scene.says, "worker", "incident.opened"))
    await scene.look("runs")
    for words in ("RuntimeError", "DBAPIError"):
        assert await scene.says("participant", words)


async def poison(scene):
    body = f'{{"{scene.poison}": '.encode()
    headers = {"saga-outcome": scene.poison, scene.poison: scene.poison}
    properties = Basic.Properties(
        message_type="start", headers=headers, message_id="m", reply_to="r"
    )
    async with raw_channel(scene.broker_url) as channel:
        for exchange, key in (
            *(("saga.replies", "saga.replies"), ("saga.requests", "start")),
            *(("saga.commands", "stock.take"), ("saga.dead-letters", "")),
        ):
            await channel.basic_publish(
                body, exchange=exchange, routing_key=key, properties=properties
            )
        start = {"run_id": str(uuid7()), "saga": "unknown", "input": {scene.poison: scene.poison}}
        await channel.basic_publish(
            json.dumps(start).encode(), exchange="saga.requests", routing_key="start"
        )

    async def all_dead_lettered():
        count = scene.log("worker").read_text().count("message.dead_lettered")
        return count >= 4 and await scene.says("participant", "message.dead_lettered")

    await wait_until_true(all_dead_lettered)


async def a_constraint_that_quotes_its_row(scene):
    await scene.execute(
        "ALTER TABLE saga_engine.run ADD CONSTRAINT strict"
        f" CHECK (key IS DISTINCT FROM '{scene.forbidden_key}')"
    )
    order = json.dumps({"card_number": scene.payload})
    await scene.command("start", "buy", "--input", order, "--key", scene.forbidden_key)
    assert await scene.says("worker", "internal_error")


async def database_is_unavailable(scene):
    scene.server.kill()
    await wait_until_true(partial(scene.says, "worker", "database.unavailable"))
    await scene.look("database-away")
    order = json.dumps({"card_number": scene.payload})
    await scene.command("list")
    await scene.command("start", "buy", "--input", order, client_timeout="1")
    await scene.server.restart()


async def the_broker_refuses_the_password(scene):
    await scene.rabbitmq.rabbitmqctl("change_password", "talker", "another")
    vhost = scene.place.rsplit("/", 1)[1]
    await scene.rabbitmq.rabbitmqctl("close_all_connections", "--vhost", vhost, "test")
    for name in scene.ports:
        await wait_until_true(partial(scene.says, name, "refuses this user or password"))
    await scene.look("password-refused")
    await scene.command("start", "buy", "--debug")
    await scene.rabbitmq.rabbitmqctl("change_password", "talker", scene.broker_password)


async def commands(scene):
    ran = await scene.command("config", "show")
    assert ran.exit_code == 0
    scene.log("config-show").write_text(ran.out)
    secret = make_canary("url")
    scene.planted.append(secret)
    arguments: tuple[str, ...]
    for url in (
        f"postgresql+asyncpg://saga:{secret}@127.0.0.1:1/x",
        f"postgresql+asyncpg://saga:{secret}@[/x",
        f"postgresql+asyncpg://saga@127.0.0.1:1/x?password={secret}",
        f"postgresql+asyncpg://saga@127.0.0.1:1/x?sslpassword={secret}",
        f"postgresql+asyncpg://saga@127.0.0.1:1/x?sslmode={secret}",
        f"mysql://saga:{secret}@h/x",
        make_url(scene.server.url).set(password=secret).render_as_string(hide_password=False),
    ):
        for arguments in (("list",), ("migrate", "--debug"), ("config", "show")):
            ran = await scene.command(*arguments, database_url=url)
            assert ran.exit_code or arguments[0] == "config"
            scene.keep("config-shows", ran.out)
    for url in (
        f"amqp://talker:{secret}@127.0.0.1:1/",
        f"amqp://talker:{secret}@[/",
        f"amqp://talker:{secret}@h:x/",
        f"http://talker:{secret}@h/",
        f"amqps://talker:{secret}@127.0.0.1:1/?no_verify_ssl={secret}",
        scene.place.replace("guest:guest", f"talker:{secret}"),
    ):
        for arguments in (("start", "buy", "--debug"), ("config", "show")):
            ran = await scene.command(*arguments, broker_url=url)
            scene.keep("config-shows", ran.out)
    rules = json.dumps({"stock.*": [secret, ""]})
    await scene.command("config", "show", reply_users=rules)
