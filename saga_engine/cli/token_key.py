"""`saga-engine rotate-token-key`: a new key for the correlation ids, while workers run."""

from datetime import timedelta

from saga_engine.cli.database import database
from saga_engine.cli.operator import By, Reason, whoever
from saga_engine.cli.output import AsJson, document, line
from saga_engine.errors import Conflict
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import audit, engine_identity
from saga_engine.store.audit import Act, Verdict


async def rotate_token_key(*, reason: Reason, by: By = None, as_json: AsJson = False) -> None:
    """
    Replace the key that signs correlation ids. Run it as the owner of the schema.

    Workers read the new key while they run and sign with it after SAGA_ENGINE_TOKEN_KEY_DELAY.
    Replies to commands signed with the key before are accepted until the next rotation: to shut out
    a key that has leaked, rotate again once the commands in flight are answered.
    """
    settings = Settings.load()
    act = Act(str(uuid7()), whoever(by), "rotate-token-key", reason)
    async with database(settings) as opened, opened.transaction() as tx:
        delay = timedelta(seconds=settings.token_key_delay)
        since = await engine_identity.rotate_token_key(tx, delay)
        if since is None:
            possible = await engine_identity.rotation_possible_from(tx, delay)
            raise Conflict(
                "Nothing was changed: some worker may still sign with the key before the last"
                " rotation, and replies to it would be refused. Rotate again from"
                f" {possible:%Y-%m-%d %H:%M:%S} UTC, which is SAGA_ENGINE_TOKEN_KEY_DELAY after the"
                " last new key began to sign."
            )
        await audit.record(tx, [act])
        told = f"The new key signs from {since:%Y-%m-%d %H:%M:%S} UTC."
        await audit.settle(tx, [Verdict(act.id, accepted=True, message=told)])
    if as_json:
        document({"action": act.action, "signs_from": since})
    else:
        line(told)
