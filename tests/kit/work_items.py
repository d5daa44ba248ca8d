"""Work items as a worker decodes them from pending requests."""

from saga_engine.decider.triggers import Cancel, Trigger
from saga_engine.identifiers import uuid7
from saga_engine.store.json_column import dumps
from saga_engine.store.pending_requests import PendingRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.worker.work_item import WorkItem


def stored_request(
    trigger: Trigger | None = None, *, role: str | None = None, fingerprint: str | None = None
) -> WorkItem:
    """A work item that was stored in PostgreSQL, by default a cancel."""
    run_id = str(uuid7())
    kind, data = serialize_trigger(trigger or Cancel("ada", "too late"))
    body = dumps(data)
    request = PendingRequest(
        id=1,
        kind=kind,
        run_id=run_id,
        body=body,
        body_size=len(body),
        body_complete=True,
        saga="parcel",
        version=None,
        definition_id=None,
        audit_id=None,
        reply_to=None,
        correlation_id=None,
        sender=None,
        key=None,
        role=role,
        fingerprint=fingerprint,
    )
    return WorkItem(
        run_id=run_id,
        trigger=trigger or Cancel("ada", "too late"),
        saga="parcel",
        pending_request=request,
        role=role,
        fingerprint=fingerprint,
    )
