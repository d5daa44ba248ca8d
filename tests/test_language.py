"""Code, tests and documents use plain words; and the language check finds what it must."""

import pytest

from tests.kit.every_file import every_file
from tests.language import EXEMPT, ROOT, files, findings

FILES = [path for path in files() if "tests/data/" not in str(path)]


@every_file(FILES)
def test_a_file_uses_plain_words(path):
    found = [
        f"line {number}: {phrase} -> {advice}"
        for number, phrase, advice in findings(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("name", EXEMPT)
def test_an_exempt_file_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("whoever waits", "whoever"),
        ("Nobody knows", "nobody"),
        ("def test_a_stranger_is_refused():", "stranger"),
        ("it is no setting of this engine", "is no setting"),
        ("one, at the most", "at the most"),
        ("three dice", "dice"),
        ("two\nwhatever it is", "whatever"),
    ],
)
def test_a_phrase_is_found_with_its_line(text, phrase):
    [(number, found, advice)] = findings(text)
    assert (number, found) == (text.count("\n") + 1, phrase)
    assert advice


@pytest.mark.parametrize(
    "text",
    [
        "every run completes or is compensated, whatever crashes",
        "there is no longer a limit",
        "a lot of orders, and an allotment",
        "recommended",
    ],
)
def test_plain_words_are_accepted(text):
    assert list(findings(text)) == []


def test_generated_and_binary_files_are_not_read():
    assert all(path.suffix not in (".json", ".gz", ".txt") for path in FILES)
