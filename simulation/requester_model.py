"""What clients and operators record in the model, as functions of PostgreSQL check it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from saga_engine.errors import StoreRefused
from saga_engine.store.audit import OperatorAction, action_columns
from saga_engine.store.checked_requests import (
    NewStart,
    StartResult,
    StartRow,
    operator_request_columns,
    start_arguments,
    start_result,
)
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Resolution
from simulation import request_checks
from simulation.key_model import KeyModel
from simulation.request_model import add_pending_request, start_is_pending
from simulation.rows import Row, rows_of

UNENCRYPTED_DIGEST_BYTES = 32
"""Bytes of an unencrypted digest."""

ALLOWED_ACTIONS: Mapping[str, Sequence[str]] = {
    "cancel": ("cancel",),
    "resolve": tuple(Resolution),
}
"""The actions of the audit record of a request, by the kind of the request."""


class RequesterModel(KeyModel):
    """The functions of `audit` and `checked_requests` that no worker calls, in memory."""

    async def record_start(self, new_start: NewStart) -> StartResult | None:
        """As `checked_requests.record_start`, without encryption."""
        return start_result(await self.request_start(start_arguments(new_start)), new_start)

    async def request_start(self, start: Mapping[str, Any]) -> StartRow:
        """As the function `request_start`, with the arguments of `start_arguments`."""
        async with self.statement():
            request_checks.check_start(start)
            version, fingerprint = self._choose_definition(start)
            if version is None or fingerprint is None:
                outcome = "unknown_saga" if version is None else "definition_mismatch"
                return StartRow(outcome, "", version, None, None)
            if start["key"] is not None:
                taken = await self._reserve_for_start(start, version)
                if taken is not None:
                    return taken
            await self._add_start(start, version, fingerprint)
            return StartRow("recorded", start["run_id"], version, None, None)

    async def _reserve_for_start(self, start: Mapping[str, Any], version: int) -> StartRow | None:
        """Reserve the key of a start; if another run has it, return that run."""
        pair = (start["saga"], start["key"])
        await self.lock("advisory", pair)
        self.refresh_snapshot()
        if await self.insert_key(pair, start["run_id"], start["digest_to_store"]):
            return None
        self.refresh_snapshot()
        holder = self.get("business_key", pair)
        assert holder is not None, "its lock is held"
        if holder["run_id"] == start["run_id"]:
            return None
        stored_digest = holder["input_digest"]
        is_encrypted = len(stored_digest) != UNENCRYPTED_DIGEST_BYTES
        return StartRow(
            outcome="key_taken",
            owner_run_id=holder["run_id"],
            pinned_version=version,
            same_input=None if is_encrypted else stored_digest == start["input_digest"],
            encrypted_digest=stored_digest if is_encrypted else None,
        )

    async def _add_start(self, start: Mapping[str, Any], version: int, fingerprint: str) -> None:
        run_id = start["run_id"]
        if not await self.insert("start_lock", run_id, {}) or start_is_pending(self, run_id):
            raise StoreRefused("That start waits already: pending_request_start_run (23505).")
        self.delete("start_lock", run_id)
        row = {
            "run_id": run_id,
            "kind": "start",
            "saga": start["saga"],
            "version": version,
            "key": start["key"],
            "body": start["body"],
            "fingerprint": fingerprint,
            "role": "client",
        }
        add_pending_request(self, row)

    def _choose_definition(self, start: Mapping[str, Any]) -> tuple[int | None, str | None]:
        """
        The version and the fingerprint that a start is pinned to.

        The first is None if the saga is unknown, the second if workers have another definition.
        """
        fingerprint, version = start["fingerprint"], start["version"]
        rows = [
            row
            for _, row in self.scan("definition")
            if row["name"] == start["saga"] and version in (None, row["version"])
        ]
        live_ids = {row["id"] for row in rows if row["present_until"] > self.now}
        if not rows:
            must_be_known = start["must_be_known"] or version is None or fingerprint is None
            return (None, None) if must_be_known else (version, fingerprint)

        def preference(row: Row) -> tuple[Any, ...]:
            lives = row["id"] in live_ids
            return lives, lives and row["version"], row["last_seen"], row["version"], row["id"]

        best = max(rows, key=preference)
        if fingerprint in (None, best["fingerprint"]):
            return best["version"], best["fingerprint"]
        matching = [row for row in rows if row["fingerprint"] == fingerprint]
        if not matching or (best["id"] in live_ids and matching[0]["id"] not in live_ids):
            return best["version"], None
        return best["version"], fingerprint

    async def record_actions(self, actions: Sequence[OperatorAction]) -> None:
        """As `audit.record`."""
        if not actions:
            return
        rows = list(rows_of(action_columns(actions)))
        async with self.statement():
            request_checks.check_audit_records(rows)
            for row in rows:
                recorded = {"recorded_at": self.now, "role": "operator"}
                nothing = {"outcome": None, "message": None, "outcomes": 0}
                await self.insert("audit", row["id"], {**row, **nothing, **recorded})

    async def record_operator_requests(self, requests: Sequence[NewRequest]) -> None:
        """As `checked_requests.record_operator_requests`."""
        for kind in ALLOWED_ACTIONS:
            same_kind = [request for request in requests if request.kind == kind]
            if same_kind:
                await self.add_operator_requests(kind, rows_of(operator_request_columns(same_kind)))

    async def add_operator_requests(self, kind: str, requests: Iterable[Row]) -> None:
        """As the function `add_operator_requests`."""
        rows = list(requests)
        async with self.statement():
            request_checks.check_requests(rows)
            requested_ids = {each["audit_id"] for _, each in self.scan("pending_request")}
            for row in rows:
                self._check_action(kind, row, requested_ids)
                requested_ids.add(row["audit_id"])
                run = self.get("run", row["run_id"])
                pinned = {"definition_id": run["definition_id"] if run else None}
                add_pending_request(self, {**row, **pinned, "kind": kind, "role": "operator"})

    def _check_action(self, kind: str, request: Row, requested_ids: Collection[str]) -> None:
        """Refuse a request that does not match its audit record."""
        action = self.get("audit", request["audit_id"])
        is_matching = (
            action and action["run_id"] == request["run_id"] and action["role"] == "operator"
        )
        if not action or not is_matching or action["action"] not in ALLOWED_ACTIONS[kind]:
            raise StoreRefused("A request has no audit record (22023).")
        if not request_checks.matches_audit_record(request["body"], action, kind):
            raise StoreRefused("A request does not match its audit record (22023).")
        if action["outcome"] is not None or request["audit_id"] in requested_ids:
            raise StoreRefused("An action already has a request or an outcome (22023).")
