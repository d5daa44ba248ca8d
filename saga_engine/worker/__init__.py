"""
What runs: from a delivery to its acknowledgement, in one transaction.

    worker      the composition root: connections, drain
    shift       a worker at work over its connections
    intake      what a delivery means: a trigger for a run, a question, or a dead letter
    pending     what a pending request means, which is a row of PostgreSQL
    arrival     what came of that: values, passed from intake to batch
    senders     which RabbitMQ users may answer a command or ask for a run
    portion     how much of what waits in PostgreSQL is taken at once
    turnover    one batch from beginning to end: transaction, commit, publish
    batch       inside the transaction: lock the runs, decide
    starts      starting runs: which definition, which key, and what a repeated start gets
    admission   how many runs of a saga are under way at once, and which one is next
    catalogue   the definitions this worker has
    alarm       interrupts a call of the author's code that takes too long
    suspicion   calls that have ended a worker, made alone and in the end not made
    ledger      what the transaction has found and decided
    writing     writes the ledger, one set-based statement for each kind of row
    outbound    after the commit: commands leave, answers and announcements are told
    account     what was committed, told as facts
    token_keys  reads the keys of the correlation ids again when a token is of none that was read
    duties      timers, recorded requests, left-behind commands, dead letters, counts
    loop        the one waiting loop
    timeslice   how long one task computes before it yields to the event loop
"""
