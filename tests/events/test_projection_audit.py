"""Who acted on the versions of a projection stays known, of the newest actions."""

from saga_engine.events import projection_audit
from saga_engine.events.projection_audit import ProjectionAction
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.rebuilds import MARA


async def test_the_newest_actions_are_kept(event_url, monkeypatch):
    monkeypatch.setattr(projection_audit, "MAX_ACTIONS", 3)
    async with (
        Database(event_url, Settings(), EVENT_DATABASE) as database,
        database.transaction() as tx,
    ):
        for version in range(1, 6):
            action = ProjectionAction.REBUILD
            await projection_audit.record(tx, "orders", action, version, MARA)
        found = await projection_audit.read(tx, "orders", 10)
    assert [each.version for each in found] == [5, 4, 3]
    assert {(each.operator, each.reason) for each in found} == {(MARA.name, MARA.reason)}
