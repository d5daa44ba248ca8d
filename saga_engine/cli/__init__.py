"""
The command line: `saga-engine`, with one module for each group of commands.

    main                 the commands, and how each of them ends
    usage_error          a command line that cannot be run, and what to type instead
    process_commands     worker, participant
    services             projector, consume; runs each process until it is stopped
    service_options      what these commands have in common
    supervisor           `--processes`: several processes with one HTTP port
    supervised_process   one of them: started, asked, started again, stopped
    process_report       what it reports to the supervisor
    worker_with_read_models  `worker --events`: a worker and the read models in one process
    start                start, wait
    runs                 list, show
    run_document         the JSON documents of `list` and `show`
    operator             cancel, resolve
    bulk_resolve         resolve, for many incidents at once
    bulk_output          what resolve prints for many incidents
    incidents            incidents
    incident_guidance    one incident in detail, and the commands that resolve it
    dead_letters         dead-letters
    dead_letter_filter   which dead letters a command is for
    redrive              redriving, discarding and purging dead letters
    streams              streams
    projections          projections
    projection_rebuild   projections rebuild, projections switch
    feeds                feeds
    schemas              schemas
    declared_schemas     the schemas of a module
    schema_problems      what `schemas check` and `schemas register` find
    consumers            consumers
    tail                 tail
    event_output         the events that `streams read` and `tail` print
    migrate              migrate
    topology             topology
    token_key            rotate-token-key
    recover              recover
    definitions          check, graph, schema
    asyncapi             asyncapi
    config               config show
    demo/                demo
    database             opening the database; run ids
    reader_state         the state of a projection or a feed, and whether a process runs it
    event_database       opening a database of events
    operator_actions     who acts on a projection, feed or consumer, and what was done
    json_argument        JSON and durations as arguments
    paging               pages of a listing, and the command for the next page
    output               JSON documents, tables and lines
    table_layout         fitting a table into the width of a terminal
    exit_status          exit codes, and the sentence for an error
    standard_streams     standard streams that are usable even if the caller closed them
    graceful_shutdown    a worker or participant until a stop signal, and its forced exit
    watchdog_process     starting and restarting the watchdog process
    watchdog             the process that kills a worker or participant that cannot end itself
"""
