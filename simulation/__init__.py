"""
Deterministic simulation: the real engine over models of its servers, in virtual time.

    play = Play(orders, {"order_id": "o-1"}, {"inventory.reserve": {"reservation_id": "r-1"}})
    outcome = simulate(Setup(seed=1, runs=50), [play])
    assert not outcome.violations

A world of workers, participants and clients is drawn from the seed; processes are killed between
any two of their effects, messages are lost, doubled and late. Then the faults end, everything must
come to its end by itself, and the promises are held against what is on record. Nothing here waits,
opens a socket or reads a clock: the same seed gives the same world, and an hour takes no time.

    world             one world: processes, faults, peace, judgement
    rollout           which versions of the sagas the workers load as time passes
    operator          who cancels runs and resolves incidents
    hostile_rows      who writes rows of any kind
    workload          what is played: a saga, its input, and participants that answer by lot
    client            the clients, which ask for the runs
    faults            what goes wrong and where, by chance or the same again
    repro             a failing world as a file, and how it is made smaller
    promises          P1 to P5 of every run
    monitor           P6, which is checked while a world runs
    process           a process that can die at every point
    broker_model      the model of RabbitMQ
    memory_database   the model of PostgreSQL
    request_checks    what PostgreSQL's functions refuse of what other roles ask for
    run_model         what the store's statements of runs mean in that model
    pending_model     what the statements of outbox, inbox and dead letters mean there
    partition_model   what the functions of the monthly partitions mean there
    barrier_model     what the statements of the barrier and of the services mean there
    virtual_time      virtual time
"""

from simulation.faults import Fault, FaultInjector
from simulation.workload import Workload
from simulation.world import SimulationConfig, SimulationResult, simulate

__all__ = ["Fault", "FaultInjector", "SimulationConfig", "SimulationResult", "Workload", "simulate"]
