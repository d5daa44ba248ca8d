"""
Deterministic simulation: the real engine over models of its servers, in virtual time.

The worker, the participant kit, the decider and the loops of projections and feeds run unchanged,
over models in memory of the engine's database (`store.interfaces.Store`), of the barrier's table,
of the event tables (`events.interfaces`) and of RabbitMQ. The model of the
database stores the columns that the store's records are written as, and reads them as the store
does. The event loop has a clock that jumps to the next timer, so an hour takes as long as the work
in it. Everything random is drawn from a seed: the same seed gives
the same simulation, statement by statement.

    workload = Workload(order_saga, {"order_id": "o-1"}, {"stock.reserve": {"reservation_id": "r"}})
    result = simulate(SimulationConfig(seed=1, runs=50), [workload])
    assert not result.violations

In the fault phase clients start runs, processes crash between any two of their effects, and
messages are lost, duplicated and delayed. Then the faults end, every run must finish without help,
and the promises P1 to P7 and E1 to E6 of
docs/reliability.md are checked.

    make simulate SEEDS=1000 RUNS=100 BASE=1        many simulations; prints a summary
    pytest tests/simulation                         what `make test` and `make test-all` run

A failing simulation is reduced to few faults and runs and written to tests/simulation/regressions/.
tests/simulation/planted_bugs.py proves that the simulation finds bugs: it has many, each planted
into the real code for one test. No package of the wheel imports this one.

    world              one simulation: processes, the fault phase, quiescence, the checks
    config             its parameters and its result
    workload           a saga, its input, and participants whose outcomes are sampled
    client             clients: start and cancel runs, ask for status, send malformed messages
    operator           operators: cancel runs and resolve incidents
    hostile_rows       a role that writes pending requests with hostile bodies
    rollout            which versions of the sagas, and how many queues of replies, workers have
    process            a process that can crash at every point
    faults             which faults happen at which point: sampled, or replayed from a list
    virtual_time       an event loop in virtual time
    monitor            P6, checked during the simulation
    held_runs          P5 of what each worker holds in memory, checked at each commit
    promises           P1 to P5 of each run, checked at the end
    event_checks       E1 to E6, checked at the end
    final_checks       what is checked of runs at the end
    repro              a failing simulation as a file, and how it is reduced
    broker_model       the model of RabbitMQ
    consumer_model     a consumer of it, and the queues that it owns
    memory_database    the model of PostgreSQL: transactions, row locks, snapshots
    memory_client      the connection of a process to it
    rows               rows of the model, and what statements do with them
    memory_store       the model of the engine's database, a Store, from the modules below
    append_model       the statement that appends what a batch has decided
    run_model          runs, their statuses and their timers
    key_model          business keys
    request_model      pending requests
    outbox_model       stale commands of the outbox
    record_model       incidents, dead letters and outcomes
    backlog_model      the counts of all tables
    definition_model   definitions, and the keys of the engine
    suspect_model      crash suspects
    requester_model    what clients and operators record
    request_checks     bounds that functions of PostgreSQL check
    partition_model    monthly partitions
    barrier_model      the barrier's table
    projection_model   the checkpoint, the rows and the parked streams of a projection
    projection_operator  deploys corrected code of a projection, and retries what was parked
    event_model        streams, positions and the horizon, checkpoints, projected tables
    effect_events      what the services append, and the projection and the feed of it
    projector          a process that runs them
    services_model     transactions of the simulated services: the barrier, and what handlers write
"""

from simulation.config import SimulationConfig, SimulationResult
from simulation.faults import Fault, FaultInjector
from simulation.workload import Workload
from simulation.world import simulate

__all__ = ["Fault", "FaultInjector", "SimulationConfig", "SimulationResult", "Workload", "simulate"]
