"""
A whole engine in this process: a worker with three sagas, and the participant that serves them.

`greet` is done at once, `held` when the test lets it. `stuck` ends in an incident: its second
command, which comes after its pivot, has no handler.
"""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import BaseModel

from saga_engine import Participant, Rejected, Retry, Saga
from saga_engine.participant.service import ParticipantService
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Emitter, Observer
from saga_engine.worker.worker import Worker


class Greeting(BaseModel):
    name: str
    loud: bool = False


ANN = {"name": "Ann"}
"""The input of a run that greets Ann."""

greet_saga = Saga("greet", version=1, input=Greeting)


@greet_saga.step(command="greeter.greet", retry=Retry(initial=timedelta(minutes=1)))
def say(greeting: Greeting) -> Greeting:
    return greeting


@say.compensation(command="greeter.apologise")
def apologise(greeting: Greeting) -> Greeting:
    return greeting


held_saga = Saga("held", version=1, input=Greeting)


@held_saga.step(command="greeter.hold")
def hold(greeting: Greeting) -> Greeting:
    return greeting


@hold.compensation(command="greeter.apologise")
def release(greeting: Greeting) -> Greeting:
    return greeting


incident_saga = Saga("stuck", version=1, input=Greeting)


@incident_saga.step(command="greeter.greet", pivot=True)
def begin(greeting: Greeting) -> Greeting:
    return greeting


@incident_saga.step(command="greeter.lost", retry=Retry(attempts=1))
def lose(greeting: Greeting) -> Greeting:
    return greeting


class GreeterParticipant:
    """The participant; `greeter.hold` is replied to when `may_finish` is set."""

    def __init__(self) -> None:
        self.may_finish = asyncio.Event()
        self.hold_started = asyncio.Event()
        self.greeted: list[str] = []
        self.participant = participant = Participant("greeter")

        @participant.command("greeter.greet")
        async def greet_(command: Greeting) -> dict[str, str]:
            if command.name == "unknown":
                raise Rejected("unknown_name", "There is no such person.")
            if command.name == "deaf":
                raise RuntimeError("They do not listen, yet.")
            self.greeted.append(command.name)
            return {"said": f"Hello, {command.name}"}

        @participant.command("greeter.hold")
        async def hold_(command: Greeting) -> dict[str, str]:
            self.hold_started.set()
            await self.may_finish.wait()
            return {"said": command.name}

        @participant.command("greeter.apologise")
        async def apologise_(command: Greeting) -> None:
            self.greeted.append(f"sorry, {command.name}")


@asynccontextmanager
async def run_services(*services):
    """Run workers and services until the block ends."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(service.run(stop))
        try:
            yield
        finally:
            stop.set()


def worker(settings: Settings, *observers: Observer) -> Worker:
    return Worker([greet_saga, held_saga, incident_saga], settings, Emitter(*observers))


def service(settings: Settings, greeter: GreeterParticipant) -> ParticipantService:
    return ParticipantService([greeter.participant], settings, Emitter())
