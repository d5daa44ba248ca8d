"""
What happens next: `decide` returns the events of a trigger, `evolve` folds them into the run.

    decide             decide(saga, run, trigger, now, ports) -> Decision

    triggers           what can happen to a run
    run                where a run is, as a value
    events             what is recorded of it, and what each event changes in it; its journal
    transitions        which status of a run, and of a step, may follow which
    evolve             evolve(run, event) -> run; replaying a journal is a fold over it

    decision           Decision, and DecisionBuilder, which records the events of one
    step_in_direction  one direction of a step: starts, succeeds and fails its attempts
    replies            what a reply means for a run
    operator           what an operator does to a run
    advance            what follows: the run goes forward, stops, or compensates

    commands           the commands to send, with their idempotency keys, and when to wake up
    payloads           which payload is checked or made; payload/reader.py reads and makes it
    diagrams           the state diagrams of a run and of a step

This is the order to read them in: the entry, what a run is, how it is decided, what follows from
that. The first lines of events.py are enough at first; its records are for looking up.

Pure: no I/O, no clock, no randomness. The same arguments give the same decision, on any worker.
"""
