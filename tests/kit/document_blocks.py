"""The blocks of code of a page of documentation, and running them as a reader does."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saga_engine.embedded.server_process import free_port
from tests.kit.command_line import environment, running_command

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


def output_of(blocks: Sequence[Block], block: Block) -> str:
    """The text block after another one."""
    following = blocks[blocks.index(block) + 1]
    assert following.language == "text"
    return following.body


def service(command: str, **more: Any) -> Any:
    """The process that a command of a page starts in the background, on another port."""
    words = command.removesuffix(" &").partition(" --port")[0].split()[1:]
    return running_command(*words, "--port", str(free_port()), **more)


async def lines_of(script: str, directory: Path, settings: Mapping[str, str], length: int) -> str:
    """What a script prints until it has printed so much; then it is killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, script),
        env=environment(**settings),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    printed = ""
    async with asyncio.timeout(60):
        while len(printed) < length:
            line = (await process.stdout.readline()).decode()
            assert line, printed
            printed += line
    process.kill()
    await process.wait()
    return printed
