"""Commands in bash, whose streams and exit codes are those that a shell sees."""

import asyncio
import shlex

from tests.kit.command_line import REPOSITORY, environment
from tests.kit.fork_server import COMMAND


async def run_in_bash(script, **more):
    """Run a line of bash in which `se` is saga-engine; return exit code, stdout and stderr."""
    line = f'se() {{ {shlex.quote(str(COMMAND))} "$@"; }}; {script}'
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", line),
        env={**environment(), **more},
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
