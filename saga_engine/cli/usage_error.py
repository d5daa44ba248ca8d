"""
The sentence for a command line that cannot be run: what is wrong, and what to type instead.

It imports nothing heavy, as `main`, which uses it for every command.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)

from saga_engine.nearest_name import did_you_mean, nearest_name

PROGRAM = "saga-engine"
_ANY_VALUE = "0"  # of every type that an argument has
_MAX_MISSING = 5
"""Arguments that are added to a command line; no command needs more."""


def usage_message(app: App, arguments: Sequence[str], error: CycloptsError) -> str:
    """
    Return what is wrong with a command line, and what to type instead.

    Args:
        app: the whole command line.
        arguments: what was typed after the name of the program.
        error: what *app* has raised for them.
    """
    match error:
        case MissingArgumentError():
            return _missing(app, arguments, error)
        case UnknownCommandError(unused_tokens=[typed, *_]):
            problem = _unknown_command(typed, error)
        case UnusedCliTokensError(unused_tokens=[typed, *_]):
            problem = (
                f"`{_command(error)}` has no argument for {typed!r}. Quote a value that has spaces."
            )
        case _:
            # The user's argument may contain line breaks, and some messages have several lines.
            problem = " ".join(str(error).split())
    return f"{problem} See `{shlex.join([PROGRAM, *(error.command_chain or ()), '--help'])}`."


def _unknown_command(typed: str, error: CycloptsError) -> str:
    """Say it without the text of cyclopts, which would import every command."""
    group = error.command_chain or ()
    kind = "option" if typed.startswith("-") else "command"
    called = " ".join([*group, typed])
    others = [" ".join([*group, each]) for each in error.app or ()]
    return f"There is no {kind} {called!r}.{did_you_mean(called, others)}"


def _missing(app: App, arguments: Sequence[str], error: MissingArgumentError) -> str:
    """Name every argument that is missing, and print the command with a word for each."""
    parsed = shown = [*arguments]
    needs: list[str] = []
    missing: MissingArgumentError | None = error
    while missing and missing.argument and len(needs) < _MAX_MISSING:
        added = _added_argument(parsed, missing.argument.name, missing)
        needs.append(added.need)
        parsed = added.to(parsed, _ANY_VALUE)
        shown = added.to(shown, _word_for(missing.argument.name))
        missing = _next_missing(app, parsed)
    *first, last = needs
    listed = f"{', '.join(first)} and {last}" if first else last
    return (
        f"`{_command(error)}` needs {listed}. Run: {shlex.join([PROGRAM, *map(_one_line, shown)])}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _AddedArgument:
    """
    An argument that a command line lacks.

    Args:
        need: names it, for a sentence.
        start: where it is put.
        stop: the word after those that it replaces.
        option: its name, if that is missing as well.
        lacks_value: whether its value is missing.
    """

    need: str
    start: int
    stop: int
    option: str = ""
    lacks_value: bool = True

    def to(self, words: Sequence[str], value: str) -> list[str]:
        """Return a command line with the argument."""
        added = [self.option] if self.option else []
        values = [value] if self.lacks_value else []
        return [*words[: self.start], *added, *values, *words[self.stop :]]


def _added_argument(
    typed: Sequence[str], name: str, missing: MissingArgumentError
) -> _AddedArgument:
    end = len(typed)
    if missing.keyword in typed:
        start = typed.index(missing.keyword) + 1
        return _AddedArgument(need=f"a value for {missing.keyword}", start=start, stop=start)
    if not name.startswith("-"):
        return _AddedArgument(need=name, start=end, stop=end)
    if misspelt := nearest_name(name, missing.unused_tokens or ()):
        start = typed.index(misspelt)
        following = typed[start + 1] if start + 1 < end else "-"
        return _AddedArgument(
            need=f"{name}, not {_one_line(misspelt)}",
            start=start,
            stop=start + 1,
            option=name,
            lacks_value=following.startswith("-"),
        )
    return _AddedArgument(need=name, start=end, stop=end, option=name)


def _next_missing(app: App, typed: Sequence[str]) -> MissingArgumentError | None:
    try:
        app.parse_args(typed, exit_on_error=False, print_error=False)
    except MissingArgumentError as error:
        return error
    except CycloptsError:  # it is reported when this one is corrected
        return None
    return None


def _word_for(name: str) -> str:
    """The word that stands for a value, as `--help` prints it for an argument without a dash."""
    return name.lstrip("-").replace("-", "_").upper()


def _one_line(word: str) -> str:
    """A word that was typed, without line breaks that would look like another message."""
    return word if word.isprintable() else word.encode("unicode_escape").decode()


def _command(error: CycloptsError) -> str:
    return " ".join(error.command_chain or (PROGRAM,))
