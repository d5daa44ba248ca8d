"""The context of the message that is handled."""

import asyncio

from saga_engine.message_context import MessageContext, current_context, handling


def test_a_block_has_its_context_and_leaves_the_outer_one():
    outer, inner = MessageContext("request-1"), MessageContext("run-1", "message-2", "mara")
    assert current_context() == MessageContext()
    with handling(outer):
        with handling(inner):
            assert current_context() == inner
        assert current_context() == outer
    assert current_context() == MessageContext()


async def test_each_task_has_its_own_context():
    both_inside = asyncio.Barrier(2)

    async def handle(name: str) -> MessageContext:
        with handling(MessageContext(name)):
            await both_inside.wait()
            return current_context()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(handle(name)) for name in ("a", "b")]
    assert [task.result() for task in tasks] == [MessageContext("a"), MessageContext("b")]
