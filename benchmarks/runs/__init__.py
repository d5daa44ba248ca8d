"""
Benchmarks of runs: ratios of sides that take turns, and what one run costs.

    sides           this engine as a side of a measurement, and how sides take turns
    run_checks      what is checked in PostgreSQL after the runs
    targets         the targets of the figures, and the table of `make bench`
    cases           the cases by name
    throughput      the cases `peers`, `barrier` and `two-workers`
    statements      the case `statements`: round trips, statements and WAL
    kept_runs       the case `kept-runs`: a database with many finished runs
    waiting_runs    the case `waiting-runs`: an idle worker, and many runs in flight
    waiting_sagas   the saga and the participant of `waiting-runs`
    ratio_check     `make bench-check`: the ratios of a short run against the recorded ones
    profile_groups  what each part of the engine takes of a worker's processor time
"""
