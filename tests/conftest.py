"""Where every test finds its servers."""

import pytest

pytest_plugins = ["tests.servers"]


def pytest_sessionfinish(session, exitstatus):
    """A selection may leave nothing of one part of the tests: that is no failure."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.option.keyword:
        session.exitstatus = pytest.ExitCode.OK
