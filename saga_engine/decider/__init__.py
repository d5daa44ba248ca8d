"""
What happens next: `decide` returns the events of a trigger, `evolve` folds them into the run.

    run        where a run stands, as a value
    triggers   what can happen to a run
    events     what is recorded of it; the journal is made of these
    decide     decide(saga, run, trigger, now, ...) -> Decision
    decision   one decision in the making: what is asked, and the events recorded so far
    replies    what a reply means for a run
    operator   what an operator does to a run
    progress   what follows: the run goes forward, stops, or compensates
    evolve     evolve(run, event) -> run; replaying a journal is a fold over it
    effects    what follows from events: commands to send, the time to wake up
    diagrams   the state diagram of a run

Pure: no I/O, no clock, no randomness. The same arguments give the same decision, on any worker.
This is the Decider pattern (J. Chassaing).
"""
