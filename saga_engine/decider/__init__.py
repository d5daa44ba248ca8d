"""
What happens next: `decide` returns the events of a trigger, `evolve` folds them into the run.

    decide       decide(saga, run, trigger, now, ports) -> Decision; read this first
    triggers     what can happen to a run
    run          where a run is, as a value
    events       what is recorded of it, and what each event changes in it; its journal
    evolve       evolve(run, event) -> run; replaying a journal is a fold over it
    transitions  which status of a run, and of a step, may follow which
    decision     Decision; DecisionBuilder; StepInDirection, which starts and fails attempts
    replies      what a reply means for a run
    operator     what an operator does to a run
    advance      what follows: the run goes forward, stops, or compensates
    payloads     which payload is checked or made; payload/reader.py reads and makes it
    commands     the commands to send, with their idempotency keys, and when to wake up
    diagrams     the state diagrams of a run and of a step

Pure: no I/O, no clock, no randomness. The same arguments give the same decision, on any worker.
"""
