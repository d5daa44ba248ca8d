"""The handlers of all statements of the store, for a model of the engine's database."""

from simulation import (
    backlog_model,
    definition_model,
    operator_model,
    outbox_model,
    partition_model,
    pending_model,
    run_model,
    start_model,
)

HANDLER_SETS = (
    definition_model.HANDLERS,
    run_model.HANDLERS,
    start_model.HANDLERS,
    operator_model.HANDLERS,
    outbox_model.HANDLERS,
    pending_model.HANDLERS,
    backlog_model.HANDLERS,
    partition_model.HANDLERS,
)
