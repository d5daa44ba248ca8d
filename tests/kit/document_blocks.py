"""The blocks of code of a page of documentation, and running them as a reader does."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kit.command_line import environment

_BLOCK = re.compile(
    r"(?:<!-- (?P<kind>file|excerpt): (?P<name>\S+) -->\n)?"
    r"```(?P<language>\w+)\n(?P<body>.*?)```",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code: its language, and the file that it is or is from."""

    language: str
    body: str
    kind: str | None = None
    name: str | None = None


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(found["language"], found["body"], found["kind"], found["name"])
        for found in _BLOCK.finditer(page)
    ]


def save_files(blocks: Sequence[Block], directory: Path) -> None:
    """Save the blocks that are files."""
    for block in blocks:
        if block.kind == "file":
            (directory / str(block.name)).write_text(block.body)


def scripts_of(blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    """The shell blocks without their `export`, and what the block of text after each shows."""
    for block, following in zip(blocks, [*blocks[1:], Block("", "")], strict=True):
        if block.language == "sh":
            lines = block.body.splitlines()
            commands = [each for each in lines if not each.startswith("export ")]
            yield "\n".join(commands), following.body if following.language == "text" else ""


async def run_script(
    directory: Path, script: str, url: str, **settings: str
) -> tuple[int | None, str, str]:
    """Run a script as a reader does who has activated the environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-ec", script),
        env={**environment(database_url=url, **settings), "PATH": path},
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
