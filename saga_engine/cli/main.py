"""
The command line: its commands, and how each of them ends.

Rule: this module, `usage_error` and `exit_status` import nothing heavy; a command's module is
imported when the command runs. Data goes to stdout, everything else to stderr. An error that a
command raises on purpose is printed as one sentence and sets the exit code; any other exception is
reported as a bug.
"""

import asyncio
import logging
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from saga_engine.cli import standard_streams
from saga_engine.cli.exit_status import print_error, print_failure
from saga_engine.cli.usage_error import usage_message

HELP = """Sagas on RabbitMQ and PostgreSQL: every run completes or is compensated, whatever crashes.

Settings come from SAGA_ENGINE_* environment variables; `saga-engine config show` lists them.
Commands that read take --json. --debug prints the traceback of an error.

Exit codes: 0 success; 1 unexpected error; 2 usage or configuration; 3 not found; 4 not possible in
this state; 5 database or broker unavailable; 6 the run finished, but not completed; 7 some of many
failed; 8 a check found problems; 9 user code stopped the process; 10 done, but the output could not
be written; 124 timed out; 129, 130, 143 ended by a signal; 137 killed by the watchdog.
"""

_COMMANDS = (
    ("worker", "process_commands:worker", "Run a worker for the sagas of some modules."),
    ("participant", "process_commands:participant", "Run the participants of some modules."),
    ("projector", "services:projector", "Run the projections and feeds of some modules."),
    ("consume", "services:consume", "Run the consumers of some modules."),
    ("start", "start:start", "Start a run."),
    ("wait", "start:wait", "Wait until a run is finished."),
    ("list", "runs:list_runs", "List runs, the newest first."),
    ("show", "runs:show", "Show a run: steps, incidents, journal and audit log."),
    ("cancel", "operator:cancel", "Cancel a run and compensate it."),
    ("incidents", "incidents:list_incidents", "List the incidents that wait for an operator."),
    ("resolve", "operator:resolve", "Resolve one incident, or many at once."),
    ("streams", "streams:app", "Read the events of a stream."),
    ("tail", "tail:tail", "Print the events of all streams as they are appended."),
    ("projections", "projections:app", "List, show, retry, rebuild and switch projections."),
    ("feeds", "feeds:app", "List and show feeds, and act on them."),
    ("schemas", "schemas:app", "List, show, compare, check and export schemas."),
    ("consumers", "consumers:app", "List and show consumers, and act on them."),
    ("dead-letters", "dead_letters:app", "List, show, redrive, discard and purge dead letters."),
    (
        "rotate-token-key",
        "token_key:rotate_token_key",
        "Replace the key that signs correlation ids.",
    ),
    ("recover", "recover:recover", "Send all commands in flight again, after a loss of data."),
    ("migrate", "migrate:migrate", "Create or upgrade the database schema."),
    ("check", "definitions:check", "Validate the sagas of a module."),
    ("graph", "definitions:graph", "Draw the sagas of a module as diagrams."),
    ("schema", "definitions:schema", "Print the JSON Schemas of messages and events."),
    ("asyncapi", "asyncapi:asyncapi", "Print the AsyncAPI document of commands, replies, events."),
    ("topology", "topology:show_topology", "Show or declare what the engine needs on the broker."),
    ("config", "config:app", "Show the settings and their sources."),
    ("demo", "demo:demo", "Run an example under faults, on embedded servers."),
)


def make_app() -> App:
    """Make the command line without importing the modules of its commands."""
    app = App(
        name="saga-engine",
        help=HELP,
        version=_version,
        default_parameter=Parameter(negative="", show_default=lambda value: value or None),
    )
    for name, target, text in _COMMANDS:
        # With the flag, `--version 4` of a command would print a version and succeed. Those with
        # commands of their own say so where they are defined.
        flags = {} if target.endswith(":app") else {"version_flags": ()}
        app.command(f"saga_engine.cli.{target}", name=name, help=text, **flags)
    return app


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - a slow import

    return version("saga-engine")


def main() -> NoReturn:
    """Run the command named by the arguments, and exit with its code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    standard_streams.prepare_standard_streams()
    # As with `python -m`, the user's modules are found in the working directory.
    with suppress(OSError):  # the directory may have been deleted
        working_directory = str(Path.cwd())
        if working_directory not in sys.path:
            sys.path.insert(0, working_directory)
    sys.exit(run_command([each for each in arguments if each != "--debug"], debug=debug))


def run_command(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run one command; return its exit code."""
    # A user does not need the logs of libraries; a worker configures its own logging.
    logging.getLogger().addHandler(logging.NullHandler())
    with standard_streams.tolerant_stdout() as output:
        code = _run_handling_errors(arguments, debug=debug)
    if output.failure is not None:
        output_error = standard_streams.output_error(output.failure, code)
        print_error(str(output_error))
        return code or output_error.exit_code
    return code


def _run_handling_errors(arguments: Sequence[str], *, debug: bool) -> int:
    """Run one command and handle every exception; return the exit code."""
    app = make_app()
    try:
        return _invoke(app, arguments)
    except CycloptsError as error:
        print_error(usage_message(app, arguments, error))
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        return print_failure(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        if debug:
            traceback.print_exception(error)
        return print_failure(error)


def _invoke(app: App, arguments: Sequence[str]) -> int:
    code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0
