"""
The worker: the process that decides runs, from a delivery to its acknowledgement.

The path of one delivery, in order:

    1. `loops` takes deliveries from the consumer, as many as have arrived, up to `batch_size`.
    2. `decode` turns each into a work item, a status query or a dead letter (`work_item`).
    3. `batch_runner` runs the batch, and what is left of it again, until everything is committed.
    4. `batch_transaction` takes the runs from the `run_cache`, or reads them, and decides each work
       item; no run is locked. For a start, `starts` asks `admission` for a slot.
    5. `change_set` collects the decisions and each work item's fate.
    6. `flush` writes it. Usually that is one statement, committed alone (`store.batch_append`): the
       journal, runs, keys, outbox, and the deletion of outbox rows that the broker has confirmed.
       If there are incidents, dead letters, pending requests or audit records, too, it is one
       transaction.
    7. `transaction_runner` keeps the runs in the cache. A run that another worker has decided first
       is lost: its work items are decided again, from step 4.
    8. `emit` emits telemetry events, `admission` adapts its limits to the replies, and
       `outbox_publisher` publishes commands, answers and run-finished messages.
    9. `loops` acknowledges the deliveries.

Timers, pending requests and everything else that no delivery triggers are `duties`; they join the
path at step 3. What happens to a work item that cannot be decided is listed in `change_set`.

The process
    worker                  connects, reports readiness, and shuts down gracefully when it
                            is asked to (by a signal: cli/graceful_shutdown)
    worker_queues           the queues that a worker consumes, and how many deliveries of each
    loops                   the consume loop, and the tasks that run the duties
    message_schemas         registers the schemas of commands and replies
    periodic                calls one duty until the worker stops
    token_keys              reads the token keys again when a token is signed with an unknown key
    timer_claims            how long a worker claims due timers, and which were moved since
    timeslice               yields to the event loop during long computations

Before the transaction
    decode                  deliveries to work items; what cannot be decoded becomes a dead letter
    decode_pending          pending requests to work items
    work_item               the values that a batch works on

The batch
    batch_runner            runs a batch until it is committed: lost runs, retries, bisecting
    transaction_runner      one transaction: decide, append, publish, remember
    batch_transaction       reads runs and decides work items
    run_cache               the runs that this worker has read or decided last
    database_clock          the time of the database, without asking for it
    authorization           which RabbitMQ users may reply to a command or request a run; the
                            batch_transaction asks it and rejects the others
    crash_suspects          runs whose call into user code has ended a worker
    registry                the sagas that this worker has loaded
    status_queries          answers clients that ask for the status of a run
    change_set              what the transaction has decided, and the fate of each work item
    flush                   writes the change set

Starts
    starts                  plain starts, and careful ones: the order of the steps, business keys
    start_preparation       decides the first step of a run
    start_refusals          refuses a start and releases its key
    repeated_starts         answers a start of a run that exists already
    admission               how many runs of a saga are in flight at once

After the commit
    emit                    telemetry events of what was committed
    outbox_publisher        publishes commands, answers and run-finished messages
    listeners               whether a client listens for the ends of runs

Duties
    duties                  every duty, its interval, and which file it is in
    due_run_duties          timers: retries, timeouts, deadlines
    pending_request_duties  requests that are stored in PostgreSQL
    outbox_duties           unroutable, unconfirmed and confirmed commands: sends a command again
    suspect_duties          crash suspects, each alone
    maintenance_duties      heartbeat, gauges, partitions, retention, token keys: the caller
                            of store/partitions, which adds and drops the months
    adaptive_limit          how many rows a duty takes at once
"""
