"""
The command line: what `saga-engine` does, one module for each group of commands.

    main                 which commands there are, and how each of them ends
    services             worker, participant
    migrate              migrate
    topology             topology
    token_key            rotate-token-key
    recover              recover
    config               config show
    definitions          check, graph
    start                start, wait
    runs                 list, show
    incidents            incidents
    operator             cancel, resolve
    bulk_resolve         resolve, for many incidents at once
    dead_letters         dead-letters
    dead_letter_filter   which dead letters a command is for
    redrive              dead letters sent again or discarded, on record with who and why
    demo/                demo
    incident_guidance    what a person needs about one incident, and the commands for it
    json_argument        JSON from the command line, from a file or from stdin
    database             how commands reach the database, and names in it
    paging               one page of a listing, and the command for the next page
    output               one JSON document, or lines for people
    table_layout         how a table fits the width of a terminal
    exit_status          the sentence and the exit code of an error
    standard_streams     the standard streams, usable in any state the caller left them in
    process              how a process that serves ends
    watchdog_process     having an overseer beside this process
    watchdog             the process that ends a worker or participant when nothing inside can
"""
