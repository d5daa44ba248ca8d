"""A supervised process reports to its supervisor, and notices the end of it."""

import asyncio
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

from saga_engine.cli.process_report import ReportAnswers, ReportQuestions, SupervisorLink
from tests.kit.http import ProcessStub

METRICS = "# of a process\n" * 100_000


@asynccontextmanager
async def questions_to(process, stopped=None):
    """The supervisor's end; the other end answers for *process*."""
    ours, theirs = socket.socketpair()
    on_supervisor_lost = (stopped or asyncio.Event()).set
    answers = ReportAnswers(
        SupervisorLink(1, theirs.detach()), process.readiness, METRICS.encode, on_supervisor_lost
    )
    questions = ReportQuestions(*await asyncio.open_unix_connection(sock=ours))
    async with asyncio.timeout(30):
        async with answers:
            yield questions
        questions.close()


async def test_a_process_reports_its_readiness_and_all_of_its_metrics():
    process = ProcessStub()
    async with questions_to(process) as questions:
        for problem in ("unavailable", None):
            process.checks["database"] = problem
            report = await questions.ask(None)
            assert report is not None
            assert report.readiness == {"database": problem, "publishing": None}
            assert report.metrics == METRICS


async def test_a_late_answer_is_that_of_the_question_it_belongs_to():
    process = ProcessStub()
    process.hold = asyncio.Event()
    async with questions_to(process) as questions:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(questions.ask(0.05)) for _ in range(10)]
        assert {task.result() for task in asked} == {None}
        await process.readiness_requested.wait()
        process.hold.set()
        assert await questions.ask(None)
        assert process.request_count == 1
        assert await questions.ask(None)
        assert process.request_count == 2


async def test_a_process_says_at_once_that_it_is_live_also_while_it_makes_a_report():
    process = ProcessStub()
    process.hold = asyncio.Event()
    async with questions_to(process) as questions, asyncio.TaskGroup() as group:
        report = group.create_task(questions.ask(None))
        await process.readiness_requested.wait()
        assert await questions.ask_liveness(None)
        assert not report.done()
        process.hold.set()
    assert report.result()
    assert process.request_count == 1


async def test_a_process_that_has_ended_gives_no_report():
    ours, theirs = socket.socketpair()
    questions = ReportQuestions(*await asyncio.open_unix_connection(sock=ours))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asked = group.create_task(questions.ask(None))
        theirs.close()
    assert asked.result() is None
    assert await questions.ask(None) is None
    assert not await questions.ask_liveness(None)
    questions.close()


async def test_a_process_stops_when_its_supervisor_has_ended():
    stopped = asyncio.Event()
    async with questions_to(ProcessStub(), stopped) as questions:
        await questions.ask(None)
        questions.close()
        await stopped.wait()


async def test_a_process_that_stops_first_does_not_mistake_that_for_the_end_of_its_supervisor():
    stopped = asyncio.Event()
    async with questions_to(ProcessStub(), stopped) as questions:
        await questions.ask(None)
    assert not stopped.is_set()


SUPERVISED = """
import socket, sys
from saga_engine.cli.process_report import SupervisorLink

supervisor, own = socket.socketpair()
own.set_inheritable(True)
if "ended" in sys.argv:
    supervisor.close()
SupervisorLink(process=2, descriptor=own.fileno()).stop_with_supervisor()
assert not own.get_inheritable()
"""


def test_programs_that_a_process_executes_do_not_get_its_socket():
    subprocess.run([sys.executable, "-c", SUPERVISED], check=True, timeout=60)


def test_a_process_whose_supervisor_has_ended_before_it_could_ask_for_a_signal_ends():
    ran = subprocess.run([sys.executable, "-c", SUPERVISED, "ended"], check=False, timeout=60)
    assert ran.returncode == 128 + signal.SIGTERM
