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
from saga_engine.embedded.server_process import free_port
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store.migrate import upgrade
from tests.kit.command_line import environment, saga_engine
from tests.kit.connections import raw_channel
from tests.kit.programs import running_program, wait_until_true
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.secret_leaks import find_leaks, find_leaks_in_files, make_canary
from tests.kit.servers import running_postgres

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


class TalkativePrograms:
    """Programs with verbose logs, the secrets that they were given, and what was printed."""

    def __init__(self, server, guest_url, printed: Path, rabbitmq: RabbitMQServer):
        self.rabbitmq = rabbitmq
        self.server, self.guest_url, self.printed = server, guest_url, printed
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
        return self.guest_url.replace("guest:guest", f"talker:{self.broker_password}")

    def environment_of(self, name, log_format):
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

    async def has_printed(self, name, words):
        return words in self.log(name).read_text()

    async def keep_http_pages(self, moment):
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
async def programs(rabbitmq, rabbitmq_url, tmp_path):
    async with running_postgres(use_tcp=True) as server:
        await upgrade(server.url)
        programs = TalkativePrograms(server, rabbitmq_url, tmp_path, rabbitmq)
        vhost = rabbitmq_url.rsplit("/", 1)[1]
        await rabbitmq.rabbitmqctl("add_user", "talker", programs.broker_password)
        await rabbitmq.rabbitmqctl("set_permissions", "-p", vhost, "talker", ".*", ".*", ".*")
        async with (
            running_program(
                *("worker", "tests.security.buy_saga"),
                environment=programs.environment_of("worker", "json"),
                log=programs.log("worker"),
            ),
            running_program(
                *("participant", "tests.security.stock", "tests.security.payments"),
                environment=programs.environment_of("participant", "console"),
                log=programs.log("participant"),
            ),
        ):
            for name in programs.ports:
                await wait_until_true(partial(programs.has_printed, name, "process.ready"))
            yield programs
        await rabbitmq.rabbitmqctl("delete_user", "talker")


@pytest.mark.long
@pytest.mark.rabbitmq
@pytest.mark.timeout(300)
async def test_no_secret_is_printed_in_any_failure(programs):
    await runs_of_every_kind(programs)
    await poison(programs)
    await a_constraint_that_quotes_its_row(programs)
    await database_is_unavailable(programs)
    await the_broker_refuses_the_password(programs)
    await commands(programs)
    [row] = await programs.execute("SELECT token_key FROM saga_engine.engine_identity")
    assert find_leaks_in_files(programs.printed, [*programs.planted, bytes(row["token_key"])]) == []


async def runs_of_every_kind(programs):
    settings = Settings(broker_url=programs.broker_url)
    async with Client(settings=settings) as client:
        for name, order in ORDERS.items():
            given = {**order, "card_number": programs.payload}
            handle = await client.start("buy", given, key=f"{programs.key}{name}")
            ending = await client.result(handle.run_id, timeout=60)
            assert ending.status == ("completed" if name == "well" else "compensated"), name
        await client.start("buy", {"mapping": "raises", "card_number": programs.payload})
        await wait_until_true(partial(programs.has_printed, "worker", "incident.opened"))
    await programs.keep_http_pages("runs")
    for words in ("RuntimeError", "DBAPIError"):
        assert await programs.has_printed("participant", words)


async def poison(programs):
    body = f'{{"{programs.poison}": '.encode()
    headers = {"saga-outcome": programs.poison, programs.poison: programs.poison}
    properties = Basic.Properties(
        message_type="start", headers=headers, message_id="m", reply_to="r"
    )
    async with raw_channel(programs.broker_url) as channel:
        for exchange, key in (
            *(("saga.replies", "saga.replies"), ("saga.requests", "start")),
            *(("saga.commands", "stock.take"), ("saga.dead-letters", "")),
        ):
            await channel.basic_publish(
                body, exchange=exchange, routing_key=key, properties=properties
            )
        start = {
            "run_id": str(uuid7()),
            "saga": "unknown",
            "input": {programs.poison: programs.poison},
        }
        await channel.basic_publish(
            json.dumps(start).encode(), exchange="saga.requests", routing_key="start"
        )

    async def all_dead_lettered():
        count = programs.log("worker").read_text().count("message.dead_lettered")
        return count >= 4 and await programs.has_printed("participant", "message.dead_lettered")

    await wait_until_true(all_dead_lettered)


async def a_constraint_that_quotes_its_row(programs):
    await programs.execute(
        "ALTER TABLE saga_engine.run ADD CONSTRAINT strict"
        f" CHECK (key IS DISTINCT FROM '{programs.forbidden_key}')"
    )
    order = json.dumps({"card_number": programs.payload})
    await programs.command("start", "buy", "--input", order, "--key", programs.forbidden_key)
    assert await programs.has_printed("worker", "internal_error")


async def database_is_unavailable(programs):
    programs.server.kill()
    await wait_until_true(partial(programs.has_printed, "worker", "database.unavailable"))
    await programs.keep_http_pages("database-away")
    order = json.dumps({"card_number": programs.payload})
    await programs.command("list")
    await programs.command("start", "buy", "--input", order, client_timeout="1")
    await programs.server.restart()


async def the_broker_refuses_the_password(programs):
    await programs.rabbitmq.rabbitmqctl("change_password", "talker", "another")
    vhost = programs.guest_url.rsplit("/", 1)[1]
    await programs.rabbitmq.rabbitmqctl("close_all_connections", "--vhost", vhost, "test")
    for name in programs.ports:
        await wait_until_true(partial(programs.has_printed, name, "refuses this user or password"))
    await programs.keep_http_pages("password-refused")
    await programs.command("start", "buy", "--debug")
    await programs.rabbitmq.rabbitmqctl("change_password", "talker", programs.broker_password)


async def commands(programs):
    ran = await programs.command("config", "show")
    assert ran.exit_code == 0
    programs.log("config-show").write_text(ran.out)
    secret = make_canary("url")
    programs.planted.append(secret)
    arguments: tuple[str, ...]
    for url in (
        f"postgresql+asyncpg://saga:{secret}@127.0.0.1:1/x",
        f"postgresql+asyncpg://saga:{secret}@[/x",
        f"postgresql+asyncpg://saga@127.0.0.1:1/x?password={secret}",
        f"postgresql+asyncpg://saga@127.0.0.1:1/x?sslpassword={secret}",
        f"postgresql+asyncpg://saga@127.0.0.1:1/x?sslmode={secret}",
        f"mysql://saga:{secret}@h/x",
        make_url(programs.server.url).set(password=secret).render_as_string(hide_password=False),
    ):
        for arguments in (("list",), ("migrate", "--debug"), ("config", "show")):
            ran = await programs.command(*arguments, database_url=url)
            assert ran.exit_code or arguments[0] == "config"
            programs.keep("config-shows", ran.out)
    for url in (
        f"amqp://talker:{secret}@127.0.0.1:1/",
        f"amqp://talker:{secret}@[/",
        f"amqp://talker:{secret}@h:x/",
        f"http://talker:{secret}@h/",
        f"amqps://talker:{secret}@127.0.0.1:1/?no_verify_ssl={secret}",
        programs.guest_url.replace("guest:guest", f"talker:{secret}"),
    ):
        for arguments in (("start", "buy", "--debug"), ("config", "show")):
            ran = await programs.command(*arguments, broker_url=url)
            programs.keep("config-shows", ran.out)
    rules = json.dumps({"stock.*": [secret, ""]})
    await programs.command("config", "show", reply_users=rules)
