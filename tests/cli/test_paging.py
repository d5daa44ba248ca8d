"""A page of a listing, and the command for the next one."""

import shlex

import pytest

from saga_engine.cli.paging import (
    check_limit,
    command_line,
    make_page,
    option_words,
    page_json,
    print_page_summary,
)
from saga_engine.errors import ConfigurationError
from saga_engine.store.bounded_count import BoundedCount

COMMAND = ("list", "--saga", "place order")


@pytest.mark.parametrize(
    ("rows", "limit", "shown", "after"),
    [("abc", 2, "ab", "b"), ("ab", 2, "ab", None), ("", 2, "", None)],
)
def test_a_page_has_a_next_one_only_if_more_rows_follow(rows, limit, shown, after):
    page = make_page(rows, limit, BoundedCount(7, exact=True))
    assert page.rows == shown
    assert page_json(page, "b") == {"total": 7, "total_exact": True, "next": after}


def test_a_total_that_was_not_counted_is_none():
    assert page_json(make_page("ab", 1, None), "a") == {
        "total": None,
        "total_exact": None,
        "next": "a",
    }


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_limit_within_its_bounds_is_accepted(limit):
    check_limit(limit, 1000)


@pytest.mark.parametrize("limit", [-1, 0, 1001])
def test_a_limit_beyond_its_bounds_is_refused(limit):
    with pytest.raises(ConfigurationError, match="--limit is 1 to 1000"):
        check_limit(limit, 1000)


def test_the_summary_has_a_command_that_a_shell_understands(capsys):
    print_page_summary(make_page("abc", 2, BoundedCount(3, exact=True)), "runs", COMMAND, "o'b")
    summary = capsys.readouterr().err
    assert summary.startswith("2 of 3 runs. Next page: saga-engine list ")
    command = shlex.split(summary.partition("Next page: ")[2])
    assert command == ["saga-engine", *COMMAND, "--after", "o'b"]


def test_a_page_without_rows_or_without_a_next_one_names_no_command(capsys):
    print_page_summary(make_page("", 2, None), "runs", COMMAND, None)
    assert capsys.readouterr().err == ""
    print_page_summary(make_page("ab", 2, None), "runs", COMMAND, "b")
    assert capsys.readouterr().err == "2 runs.\n"
    print_page_summary(make_page("a", 2, None), "runs", COMMAND, "a")
    assert capsys.readouterr().err == "1 run.\n"


def test_only_options_that_were_given_are_words():
    options = {"--saga": "greet", "--all": True, "--yes": False, "--key": None, "--limit": 0}
    assert option_words(options) == ["--saga", "greet", "--all", "--limit", "0"]
    assert command_line("list", "a b") == "saga-engine list 'a b'"
