"""Commands that run as process 1 of a container does."""

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def first_process():
    """A command that runs another one as process 1 of a new PID namespace."""
    command = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
    ran = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if ran.returncode:
        reason = f"no PID namespace can be created here: {ran.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield command
