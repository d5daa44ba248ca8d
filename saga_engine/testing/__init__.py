"""
Deterministic simulation: the real engine over models of its servers, in virtual time.

    world        a simulated world from a seed: processes, clients, faults, peace, judgement
    play         what is played: a saga, its input, and participants that answer by lot
    faults       what goes wrong and where, by chance or the same again
    shrink       the smallest world and the fewest faults that still break a promise
    promises     P1 to P5 of every run; `witness` sees to P6 while it happens
    process      a process that can die at every point
    broker       the model of RabbitMQ, `tables` that of PostgreSQL
    store        what the statements of the engine mean there; `waiting` and `barrier` have the rest
    loop         virtual time

Nothing here waits, opens a socket or reads a clock. The same seed gives the same world.
"""
