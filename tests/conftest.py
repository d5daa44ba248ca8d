"""Where every test finds its servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saga_engine.containment import CURRENT_CALL

pytest_plugins = [
    "tests.kit.servers",
    "tests.kit.database_fixtures",
    "tests.kit.hypothesis_profiles",
]

LONG_FOLDERS = {"faults", "hostile"}
"""All tests there are `long`; elsewhere a file or a test is marked."""


def pytest_ignore_collect(collection_path, config):
    """Without the long tests, do not import the modules of LONG_FOLDERS, which takes seconds."""
    folders = [Path(__file__).parent / each for each in LONG_FOLDERS]
    return True if "not long" in config.option.markexpr and collection_path in folders else None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
    """Mark the tests of LONG_FOLDERS."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in LONG_FOLDERS:
            item.add_marker("long")


def pytest_sessionfinish(session, exitstatus):
    """A selection may leave nothing of one part of the tests, which does not fail"""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.option.keyword:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture(autouse=True)
def no_pending_calls() -> Iterator[None]:
    """What a test begins in the name of user code it ends, or the next one could cancel nothing."""
    yield
    assert CURRENT_CALL.get() is None
