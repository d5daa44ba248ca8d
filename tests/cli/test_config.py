"""`saga-engine config show`: every setting with its source, and no secret."""

import pytest

from saga_engine.cli.config import mask_url
from tests.kit.command_line import saga_engine


async def test_a_typo_in_the_environment_is_an_error():
    ran = await saga_engine("config", "show", databse_url="x")
    assert ran.exit_code == 2
    assert (
        "SAGA_ENGINE_DATABSE_URL is not a setting. Did you mean SAGA_ENGINE_DATABASE_URL?"
        in ran.err
    )


async def test_config_shows_every_setting_with_its_source_and_no_password():
    ran = await saga_engine(
        *("config", "show", "--json"),
        poll_interval="0.5",
        broker_url="amqp://guest:hunter2@host:5672/v?password=hunter2",
    )
    rows = {row["name"]: row for row in ran.json["settings"]}
    assert (
        rows["SAGA_ENGINE_POLL_INTERVAL"]["value"],
        rows["SAGA_ENGINE_POLL_INTERVAL"]["source"],
    ) == (
        0.5,
        "environment",
    )
    assert rows["SAGA_ENGINE_REPLY_PREFETCH"]["source"] == "default"
    assert rows["SAGA_ENGINE_BROKER_URL"]["value"] == "amqp://guest:***@host:5672/v?***"
    assert "hunter2" not in ran.out
    plain = await saga_engine("config", "show", broker_url="amqp://guest:hunter2@host/")
    assert "hunter2" not in plain.out + plain.err


async def test_config_shows_sender_rules_as_written():
    rules = '{"payment.*": ["payments"], "*": []}'
    ran = await saga_engine("config", "show", "--json", authorized_reply_users=rules)
    rows = {row["name"]: row["value"] for row in ran.json["settings"]}
    assert rows["SAGA_ENGINE_AUTHORIZED_REPLY_USERS"] == rules


@pytest.mark.parametrize("rules", ["payments", "[]", '{"payment.*": "payments"}', '{"*": [""]}'])
async def test_invalid_sender_rules_are_refused(rules):
    ran = await saga_engine("config", "show", authorized_reply_users=rules)
    assert ran.exit_code == 2
    assert 'SAGA_ENGINE_AUTHORIZED_REPLY_USERS is invalid: must be JSON of the form {"payment' in (
        ran.err
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:p@h:1/v", "amqp://u:***@h:1/v"),
        ("amqp://u:p:q@r@h/v?key=s#f", "amqp://u:***@h/v?***"),
        ("postgresql+asyncpg://u@/d?host=/x", "postgresql+asyncpg://u@/d?***"),
        ("amqp://h", "amqp://h"),
        ("amqp://u:p@one:1,two:2/v", "amqp://u:***@one:1,two:2/v"),
        ("amqp://u:p@[::1", "amqp://u:***@[::1"),
        ("amqp://u:p/q@h:1/v", "amqp://u:***@h:1/v"),
        ("amqp://u:p?q@h/v?key=s", "amqp://u:***@h/v?***"),
        ("postgresql+asyncpg://u:p#q@h/d", "postgresql+asyncpg://u:***@h/d"),
        ("postgresql+asyncpg:///d?user=u&password=p@h", "postgresql+asyncpg://:***@h"),
        ("k1=8eYQ,k2=@/h", "***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert mask_url(url) == shown
