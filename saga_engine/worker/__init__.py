"""
What runs: from a delivery to its acknowledgement, in one transaction.

    worker              the composition root: connections, drain
    loops               a worker at work over its connections
    decode              what a delivery means: a trigger for a run, a question, or a dead letter
    decode_pending      what a pending request means, which is a row of PostgreSQL
    work_item           what came of that: values, passed from intake to batch
    authorization       which RabbitMQ users may answer a command or ask for a run
    adaptive_limit      how much of what waits in PostgreSQL is taken at once
    batch_runner        one batch from beginning to end: transaction, commit, publish
    batch_transaction   inside the transaction: lock the runs, decide
    starts              starting runs: which definition, which key, and what a repeated start gets
    admission           how many runs of a saga are under way at once, and which one is next
    registry            the definitions this worker has
    time_limit          interrupts a call of the author's code that takes too long
    crash_suspects      calls that have ended a worker, made alone and in the end not made
    change_set          what the transaction has found and decided
    flush               writes the ledger, one set-based statement for each kind of row
    outbox_publisher    after the commit: commands leave, answers and announcements are told
    emit                what was committed, told as facts
    token_keys          reads the keys of the correlation ids again for a token of an unknown key
    duties              timers, recorded requests, left-behind commands, dead letters, counts
    periodic            the one waiting loop
    timeslice           how long one task computes before it yields to the event loop
"""
