"""A port at which no broker is."""

import pytest

from saga_engine.embedded.server_process import free_port


@pytest.fixture
def unused_port():
    return free_port()
