"""
What happens next: `decide` returns the events of a trigger, `evolve` folds them into the run.

    decide       decide(saga, run, trigger, now, ports) -> Decision; read this first
    triggers     what can happen to a run
    run          where a run is, as a value
    events       what is recorded of it; its journal consists of these
    evolve       evolve(run, event) -> run; replaying a journal is a fold over it
    transitions  which status of a run, and of a step, may follow which
    decision     the Decision, and one in progress: starts an attempt, fails it, opens an incident
    replies      what a reply means for a run
    operator     what an operator does to a run
    advance      what follows: the run goes forward, stops, or compensates
    payloads     replies as their types, and commands by the author's mapping functions
    commands     the commands to send: makes their idempotency keys; and the time to wake up
    diagrams     the state diagrams of a run and of a step

Pure: no I/O, no clock, no randomness. The same arguments give the same decision, on any worker.
"""
