"""
The engine's own read models: statistics of runs, derived from their journals.

    read_models        ReadModels: the engine's own projections, beside a worker
    read_model         ReadModel: a projection of the journals that is one statement for a batch
    read_model_runner  the loop of one read model: lease, batches, waiting
    read_model_batch   one transaction of a read model, and finding the row that breaks it
    read_model_rebuild  filling a read model again, from the first event of a run that is stored
    run_statistics     the read model of runs by saga and status
    step_durations     the read model of durations by step
    failure_causes     the read model of failures by cause
"""
