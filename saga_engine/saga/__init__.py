"""
What a saga is and what comes next.

    vocabulary   the words of a run that travel
    definition   Saga, Step, Compensation: what the author declares
    retry        how often and how soon the same command is sent again
    binding      the parameters of the author's functions, tied to the input and to earlier replies
    rules        what makes a saga sound, checked when its module is loaded
    graph        pictures of a saga, as text
    run          where a run stands, as a value
    trigger      what can happen to a run
    event        what is recorded of it; the journal is made of these
    record       frozen dataclasses to plain data and back, for the journal and for snapshots
    sealing      payloads as they are held: sealed by a codec, opened where they are needed
    payload      what travels: written so that its type reads the same value back, or refused
    faithful     which types arrive as they were given
    trial        types tried on example values when they are declared
    same         whether a value arrived as it was given
    limits       how large a JSON body may be
    secret       a value that travels and is never shown
    guard        calls into the author's code
    decide       decide(saga, run, trigger, now, ...) -> Decision
    turn         one decision in the making: what is asked, and the events recorded so far
    reply        what a reply means for a run
    operator     what a person does to a run
    course       what follows: the run goes forward, stops, or goes back
    evolve       evolve(run, event) -> run; replaying a journal is a fold over it
    effect       what follows from events: commands to send, the time to wake up

Pure: no I/O, no clock, no dice. The same arguments give the same decision, on any worker, for ever.
"""
