"""
`saga-engine worker` and `saga-engine participant`: one process, or several under a supervisor.

What only the processes themselves need is imported when they run: the supervisor stays small.
"""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from saga_engine.cli.graceful_shutdown import exit_on_stop_signals
from saga_engine.cli.process_report import SupervisorLink
from saga_engine.cli.service_options import Host, Port, load_settings
from saga_engine.cli.supervised_process import SupervisedCommand
from saga_engine.cli.supervisor import MAX_PROCESSES, supervise
from saga_engine.vocabulary import Program

Processes = Annotated[
    int,
    Parameter(
        validator=Number(gte=1, lte=MAX_PROCESSES),
        help="How many processes to run, with one supervisor and one port for all.",
    ),
]
Link = Annotated[tuple[int, int] | None, Parameter(show=False)]
"""Given by a supervisor only: the fields of a SupervisorLink."""


def worker(
    *modules: str,
    port: Port = None,
    host: Host = None,
    events: Annotated[
        bool, Parameter(help="Keep the engine's read models up to date, for statistics.")
    ] = False,
    processes: Processes = 1,
    supervisor_link: Link = None,
) -> int:
    """
    Run a worker for the sagas of some modules, until it is stopped.

    The first SIGTERM or SIGINT finishes the work in progress and exits 0; the second exits at once.

    Args:
        modules: Any number of MODULE or MODULE:SAGA.
    """
    exit_on_stop_signals()
    settings = load_settings(port, host)
    settings.require_database_url()
    settings.require_broker_url()
    if processes > 1:
        arguments = ["--events", *modules] if events else modules
        return supervise(SupervisedCommand(Program.WORKER, arguments), processes, settings)
    link = _supervisor_link(supervisor_link)
    from saga_engine.cli.services import run_worker  # noqa: PLC0415 - see above

    run_worker(modules, settings, events=events, link=link)
    return 0


def participant(
    *modules: str,
    port: Port = None,
    host: Host = None,
    processes: Processes = 1,
    supervisor_link: Link = None,
) -> int:
    """
    Run the participants of some modules, until the process is stopped.

    The first SIGTERM or SIGINT finishes the work in progress and exits 0; the second exits at once.

    Args:
        modules: Any number of MODULE or MODULE:PARTICIPANT.
    """
    exit_on_stop_signals()
    settings = load_settings(port, host)
    settings.require_broker_url()
    if processes > 1:
        return supervise(SupervisedCommand(Program.PARTICIPANT, modules), processes, settings)
    link = _supervisor_link(supervisor_link)
    from saga_engine.cli.services import run_participants  # noqa: PLC0415 - see above

    run_participants(modules, settings, link=link)
    return 0


def _supervisor_link(fields: tuple[int, int] | None) -> SupervisorLink | None:
    if fields is None:
        return None
    link = SupervisorLink(*fields)
    link.stop_with_supervisor()
    return link
