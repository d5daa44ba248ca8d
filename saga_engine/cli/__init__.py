"""
The command line: what `saga-engine` does, one module for each group of commands.

    main           which commands there are, and how each of them ends
    services       worker, participant
    migrate        migrate
    topology       topology
    token_key      rotate-token-key
    recover        recover
    config         config show
    definitions    check, graph
    asking         start, wait
    runs           list, show
    incidents      incidents
    operating      cancel, resolve
    bulk           resolve, for many incidents at once
    dead_letters   dead-letters
    selection      which dead letters a command is for
    settling       dead letters sent again or discarded, on record with who and why
    demo/          demo
    guidance       what a person needs about one incident, and the commands for it
    given          JSON from the command line, from a file or from stdin
    stored         how commands reach the database, and names in it
    paging         one page of a listing, and the command for the next page
    output         one JSON document, or lines for people
    layout         how a table fits the width of a terminal
    verdict        the sentence and the exit code of an error
    streams        the standard streams, usable in any state the caller left them in
    process        how a process that serves ends
    oversight      having an overseer beside this process
    overseer       the process that ends a worker or participant when nothing inside can
"""
