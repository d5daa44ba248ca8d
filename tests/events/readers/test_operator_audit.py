"""What operators did stays known, of the newest actions on each projection and feed."""

from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action, Operator, Subject, SubjectKind
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE

MARA = Operator("mara", "the totals were wrong")
PROJECTION = Subject(SubjectKind.PROJECTION, "orders", 2)
FEED = Subject(SubjectKind.FEED, "orders", sink="exchange")


async def test_the_newest_actions_are_kept(event_url, monkeypatch):
    monkeypatch.setattr(operator_audit, "MAX_ACTIONS", 3)
    async with (
        Database(event_url, Settings(), EVENT_DATABASE) as database,
        database.transaction() as tx,
    ):
        await operator_audit.record(tx, FEED, Action.REWIND, MARA, 7)
        for position in range(1, 6):
            await operator_audit.record(tx, PROJECTION, Action.SKIP, MARA, position)
        await operator_audit.record(tx, PROJECTION, Action.PAUSE, MARA)
        found = await operator_audit.read(tx, PROJECTION, 10)
        assert [each.position for each in found] == [None, 5, 4]
        assert {each.version for each in found} == {2}
        assert {(each.operator, each.reason) for each in found} == {(MARA.name, MARA.reason)}
        (skipped,) = await operator_audit.read(tx, PROJECTION, 1, (Action.SKIP,))
        assert skipped.position == 5
        (rewound,) = await operator_audit.read(tx, FEED, 10)
        assert (rewound.action, rewound.version, rewound.position) == (Action.REWIND, None, 7)
