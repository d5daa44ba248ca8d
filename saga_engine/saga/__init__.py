"""
What a saga is and what comes next.

    vocabulary   the words of a run that travel
    definition   Saga, Step, Compensation: what the author declares
    binding      the parameters of the author's functions, tied to the input and to earlier replies
    rules        what makes a saga sound, checked when its module is loaded
    run          where a run stands, as a value
    trigger      what can happen to a run
    event        what is recorded of it; the journal is made of these
    sealing      payloads as they are held: sealed by a codec, opened where they are needed
    payload      what travels: written so that its type reads the same value back, or refused;
                 `faithful`, `trial` and `same` say which types need a look, `limits` how large
    secret       a value that travels and is never shown
    decide       decide(saga, run, trigger, now, ...) -> Decision; in it a `turn` goes
                 through `reply` or `operator`, then `course`
    evolve       evolve(run, event) -> run; replaying a journal is a fold over it
    effect       what follows from events: commands to send, the time to wake up

Pure: no I/O, no clock, no dice. The same arguments give the same decision, on any worker, for ever.
"""
