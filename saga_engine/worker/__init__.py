"""
What runs: from a delivery to its acknowledgement, in one transaction.

    worker       the composition root: connections, drain
    shift        a worker at work over its connections
    intake       what a delivery means: a trigger for a run, a question, or a dead letter
    arrival      what came of that: values, passed from intake to batch
    turnover     one batch from beginning to end: transaction, commit, publish
    batch        inside the transaction: lock the runs, decide; starts are in `starts`
    catalogue    the definitions this worker has
    ledger       what the transaction has found and decided; `writing` writes it
    outbound     after the commit: commands leave, answers and announcements are told
    account      what was committed, told as facts
    duties       timers, recorded requests, left-behind commands, dead letters, counts
    loop         the one waiting loop
"""
