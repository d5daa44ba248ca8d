"""
The command line: which commands there are, and how every one of them ends.

Rule: this module and `help` import nothing heavy; a command's module is imported when the command
runs. Data goes to stdout, everything else to stderr. What a command raises on purpose becomes one
sentence and its exit code; anything else is a bug, and said to be one.
"""

import asyncio
import logging
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownCommandError

from saga_engine.cli import standard_streams
from saga_engine.cli.exit_status import print_error, print_failure

HELP = """Sagas on RabbitMQ and PostgreSQL: every run completes or is undone, whatever crashes.

Settings come from SAGA_ENGINE_* in the environment; `saga-engine config show` lists them.
Add --json to whatever reads, --debug to see the traceback of an error.

Exit codes: 0 ok; 1 unexpected; 2 usage or configuration; 3 not found; 4 not possible in this state;
5 database or broker out of reach; 6 the run ended, but not completed; 7 some of many failed;
8 a check found problems; 9 user code stops the process; 10 done, but the output cannot be
written; 124 waited long enough; 130, 143 interrupted.
"""

_COMMANDS = (
    ("worker", "services:worker", "Run sagas until told to stop."),
    ("participant", "services:participant", "Perform commands until told to stop."),
    ("start", "start:start", "Start a run."),
    ("wait", "start:wait", "Wait until a run is finished."),
    ("list", "runs:list_runs", "List runs, the newest first."),
    ("show", "runs:show", "Show everything on record about a run."),
    ("cancel", "operator:cancel", "Have a run undone."),
    ("incidents", "incidents:list_incidents", "List what waits for a person."),
    ("resolve", "operator:resolve", "Act on an incident."),
    ("dead-letters", "dead_letters:app", "Look at, send again or discard dead letters."),
    (
        "rotate-token-key",
        "token_key:rotate_token_key",
        "Replace the key that signs correlation ids.",
    ),
    ("recover", "recover:recover", "Send again what is in flight, after a loss."),
    ("migrate", "migrate:migrate", "Bring the database to this version's schema."),
    ("check", "definitions:check", "Hold the sagas of a module against every rule."),
    ("graph", "definitions:graph", "Draw a saga."),
    ("schema", "definitions:schema", "Print the JSON Schema of inputs, commands and replies."),
    ("topology", "topology:show_topology", "Show what exists on the broker."),
    ("config", "config:app", "Show the settings and where each comes from."),
    ("demo", "demo:demo", "Run real sagas on embedded servers and show what happens."),
)


def make_app() -> App:
    """Make the command line; nothing it can do is imported yet."""
    app = App(
        name="saga-engine",
        help=HELP,
        version=_version,
        default_parameter=Parameter(negative="", show_default=lambda value: value or None),
    )
    for name, target, text in _COMMANDS:
        app.command(f"saga_engine.cli.{target}", name=name, help=text)
    return app


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - it takes as long as a database module

    return version("saga-engine")


def main() -> NoReturn:
    """Run the command that the arguments name, and exit with its code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    standard_streams.prepare_standard_streams()
    # The user's modules are found as `python -m` finds them: from where the command is given.
    with suppress(OSError):  # that directory may have been removed
        working_directory = str(Path.cwd())
        if working_directory not in sys.path:
            sys.path.insert(0, working_directory)
    sys.exit(run_command([each for each in arguments if each != "--debug"], debug=debug))


def run_command(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run one command; its exit code."""
    # What libraries log is not for whoever typed a command; a worker sets its own logs up.
    logging.getLogger().addHandler(logging.NullHandler())
    with standard_streams.tolerant_stdout() as output:
        code = _run_handling_errors(arguments, debug=debug)
    if output.failure is not None:
        output_error = standard_streams.output_error(output.failure, code)
        print_error(str(output_error))
        return code or output_error.exit_code
    return code


def _run_handling_errors(arguments: Sequence[str], *, debug: bool) -> int:
    """Run one command, whatever it raises; its exit code."""
    try:
        return _invoke(arguments)
    except CycloptsError as error:
        print_error(f"{_usage_message(error)} See `saga-engine --help`.")
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        return print_failure(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        if debug:
            traceback.print_exception(error)
        return print_failure(error)


def _invoke(arguments: Sequence[str]) -> int:
    code = make_app()(
        arguments, exit_on_error=False, print_error=False, result_action="return_value"
    )
    return code if isinstance(code, int) else 0


def _usage_message(error: CycloptsError) -> str:
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        typed = error.unused_tokens[0]  # its own text would import every command there is
        close_matches = get_close_matches(typed, error.app or (), n=1)
        return (
            "There is no command"
            f" {typed!r}.{f' Did you mean {close_matches[0]}?' if close_matches else ''}"
        )
    if isinstance(error, MissingArgumentError) and error.argument:
        command = " ".join(error.command_chain or ())
        return f"`{command}` needs {error.argument.name}."
    # What was typed may hold line ends, and some of its texts are drawn over several lines.
    return " ".join(str(error).split())
