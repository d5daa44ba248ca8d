"""A database URL means the same to us as to SQLAlchemy, or it is refused."""

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from saga_engine.errors import ConfigurationError
from saga_engine.postgres.url import parse_database_url

PREFIX = "postgresql+asyncpg://"

MEANT = [
    "",
    "h/d",
    "u@h/",
    "u@h/d",
    "u:p@h:55/d",
    ":p@h/",
    "u@[::1]/d",
    "u@[::1]:5/d",
    "u%40:p%2F%3F@h/d%20e",
    "h,k/d",
    "u:p@h:55/d?host=x",
    "u@h:5?host=/tmp",
    "u@h/d?port=77",
    "u@h:5/d?port=6",
    "u@/d?host=/tmp/x&port=5432",
    "u@/d?host=%2Ftmp%2Fx&port=1",
    "u@/d?host=one:5432",
    "u@/d?host=",
    "u@/d?host=a&port=",
    "u@/d?host=a:x",
    "u@/d?host=::1&port=5",
    "u@/d?user=v&password=w&database=e",
    "u@h/d?host=a,b&port=1,2",
    "u@/d?host=a:1&host=b:2",
    "u@/d?host=a:1&host=b:2&target_session_attrs=any",
    "u@h/d?ssl=x&passfile=y",
]

REFUSED = [
    "u@h:/d",
    "u@h:x/d",
    "u@/d?port=x",
    "u@/d?port=1,2",
    "u@/d?host=a,b",
    "u@/d?host=a,b&port=1",
    "u@/d?host=a:1,b:2",
    "u@h/d?host=a&host=b",
    "u@/d?host=a:1&host=b:2&port=3",
]


def theirs(url):
    parsed = make_url(url)
    return parsed.get_dialect()().create_connect_args(parsed)[1]


@pytest.mark.parametrize("rest", MEANT)
def test_the_driver_gets_the_arguments_that_sqlalchemy_makes(rest):
    ours = parse_database_url(PREFIX + rest).connect_arguments()
    if isinstance(ours.get("host"), list) and "target_session_attrs" not in rest:
        assert ours.pop("target_session_attrs") == "read-write"
    assert ours == theirs(PREFIX + rest)


@pytest.mark.parametrize("rest", REFUSED)
def test_what_sqlalchemy_refuses_is_refused(rest):
    with pytest.raises(ConfigurationError, match="The database URL cannot be read"):
        parse_database_url(PREFIX + rest)
    with pytest.raises((ArgumentError, ValueError)):
        theirs(PREFIX + rest)


@pytest.mark.parametrize("url", ["", "h", "postgresql://h/d", "mysql://h/d", "amqp://h"])
def test_a_url_of_something_else_is_refused(url):
    with pytest.raises(ConfigurationError, match="The database URL cannot be read"):
        parse_database_url(url)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("h:0/d", "has the port 0"),
        ("h:65536/d", "has the port 65536"),
        ("h/d?timeout=soon", "has the parameter timeout, which must be a number"),
        ("h/d?patience=1", "has the parameter patience, which asyncpg does not know"),
        ("h/d?timeout=1&timeout=2", "has the parameter timeout more than once"),
    ],
)
def test_an_invalid_parameter_is_named(rest, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_database_url(PREFIX + rest).connect_arguments()


def test_numeric_parameters_become_numbers():
    found = parse_database_url(f"{PREFIX}h/d?timeout=3&statement_cache_size=0").connect_arguments()
    assert (found["timeout"], found["statement_cache_size"]) == (3.0, 0)


def test_an_address_shows_no_password():
    address = parse_database_url(f"{PREFIX}me:hunter2@h/d?passfile=hunter3")
    assert address.without_password == "me@h:5432/d"
    assert "hunter" not in repr(address)
