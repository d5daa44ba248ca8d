"""
Peers that the engine is compared with, on the same machine and in turns with it.

    installation   the programs of peers, downloaded into the cache by hand
    restate        Restate with TypeScript handlers: its server, its handlers, and the load
    place_order.mjs   the place-order saga as a service of Restate

`python -m benchmarks.peers --install` downloads what is missing; CI does not. `make bench
BENCH="runs --case peers"` measures the peers that are installed.
"""
