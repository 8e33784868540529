"""The dark promises of the executor's store, each as one function that fails when the promise is broken.

They are functions and no tests because they run twice: on the adapter as it is, where they must pass, and on the
adapter with a safeguard taken away, where they must fail (test_executor_store.py).
"""

from __future__ import annotations

import asyncio

import pytest

from services.executor.store import Fenced, FlushBatch, FlushRefused, Position, PositionMoved, RunStatus
from tests.contracts.executor_stores import (
    EPOCH,
    KEY,
    PROJECT,
    TOPIC,
    Backing,
    claim,
    ended,
    later,
    move,
    new_run,
)


async def refuses_a_dead_incarnation(backing: Backing) -> None:
    """I8: after a take-over nothing of the old incarnation is written, whatever it holds."""
    epoch = await backing.began()
    await backing.position()
    mine = new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[mine]))
    await backing.kill(epoch)
    late = new_run()
    before = await backing.content(mine.identity.run_id, late.identity.run_id)
    with pytest.raises(Fenced):
        await backing.store.flush(
            FlushBatch(epoch, 2, [move(5, 6)], [late, later(mine, 1, b"chunk 1")], values={KEY: b"1"})
        )
    assert await backing.content(mine.identity.run_id, late.identity.run_id) == before


async def refuses_a_wrong_flush_number(backing: Backing) -> None:
    """A commit whose answer was lost is never written a second time, and none is left out."""
    epoch = await backing.began()
    run = new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    for number in (1, 3):
        with pytest.raises(Fenced):
            await backing.store.flush(FlushBatch(epoch, number, runs=[later(run, 1, b"chunk 1")]))
    assert await backing.eye.journal(run.identity.run_id) == [b"chunk 0"]
    assert await backing.store.last_flush(epoch) == (1, set())


async def refuses_a_position_moved_by_another(backing: Backing) -> None:
    """I2: who does not know where the partition stands may store nothing that came from it."""
    epoch = await backing.began()
    await backing.position(5)
    run = new_run()
    before = await backing.content(run.identity.run_id)
    for wrong in (move(4, 6), move(6, 7), move(5, 6, log_epoch="log-2"), move(0, 1, partition=1)):
        with pytest.raises(PositionMoved):
            await backing.store.flush(FlushBatch(epoch, 1, [wrong], [run], values={KEY: b"1"}))
        assert await backing.content(run.identity.run_id) == before
    assert await backing.store.last_flush(epoch) == (0, set())


async def refuses_a_chunk_that_exists(backing: Backing) -> None:
    """The second fence: two writers of one journal collide on the number of the chunk."""
    epoch = await backing.began()
    await backing.position()
    run, other = new_run(), new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    before = await backing.content(run.identity.run_id, other.identity.run_id)
    with pytest.raises(FlushRefused):
        await backing.store.flush(
            FlushBatch(epoch, 2, [move(5, 6)], [other, later(run, 0, b"another chunk 0")], values={KEY: b"1"})
        )
    assert await backing.content(run.identity.run_id, other.identity.run_id) == before


async def refuses_to_end_the_run_of_another(backing: Backing) -> None:
    """I8: a run ends in the hands of its owner alone."""
    owner, thief = await backing.began(), await backing.began()
    await backing.position()
    run, other = new_run(), new_run()
    await backing.store.flush(FlushBatch(owner, 1, runs=[run]))
    before = await backing.content(run.identity.run_id, other.identity.run_id)
    with pytest.raises(Fenced):
        await backing.store.flush(FlushBatch(thief, 1, [move(5, 6)], [other, later(run, 1, b"end", ended())]))
    assert await backing.content(run.identity.run_id, other.identity.run_id) == before


async def keeps_a_run_id_for_the_first(backing: Backing) -> None:
    """I2: a run id that was stored before is told, and of its second delivery nothing is written."""
    epoch = await backing.began()
    await backing.position(5)
    gone, live = new_run(end=ended()), new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[gone, live]))
    fresh = new_run()
    gone_again, live_again = new_run(chunk=b"again", end=ended(RunStatus.FAILED)), new_run(chunk=b"again")
    gone_again.identity, live_again.identity = gone.identity, live.identity
    batch = FlushBatch(epoch, 2, [move(5, 8)], [gone_again, fresh, live_again])
    duplicates = {gone.identity.run_id, live.identity.run_id}
    assert await backing.store.flush(batch) == duplicates
    for run, status in ((gone, RunStatus.SUCCEEDED), (live, RunStatus.RUNNING), (fresh, RunStatus.RUNNING)):
        assert await backing.eye.journal(run.identity.run_id) == [b"chunk 0"]
        assert await backing.eye.status(run.identity.run_id) is status
    assert await backing.store.positions(TOPIC) == {0: Position(EPOCH, 8)}
    assert await backing.store.last_flush(epoch) == (2, duplicates)


async def takes_over_only_who_stood_still(backing: Backing) -> None:
    epoch = await backing.began()
    run = new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    ((_, seen),) = await backing.store.beats()
    await backing.store.flush(FlushBatch(epoch, 2))
    assert await backing.store.take_over(epoch, seen) is None
    assert await backing.eye.owner(run.identity.run_id) == epoch
    await backing.store.flush(FlushBatch(epoch, 3))


async def refuses_the_claim_of_a_dead_incarnation(backing: Backing) -> None:
    """I8: who was taken over takes nothing in hand."""
    epoch, other = await backing.began(), await backing.began()
    (run_id,) = await backing.queued(other, 1, PROJECT)
    await backing.kill(epoch)
    with pytest.raises(Fenced):
        await backing.store.claim(epoch, claim())
    assert await backing.eye.owner(run_id) is None


async def loses_no_increment(backing: Backing) -> None:
    """Two flushes that change one value: the second reads what the first wrote, also when the key held nothing."""
    epochs = [await backing.began() for _ in range(4)]

    async def increment(epoch: int) -> None:
        for number in range(1, 6):
            async with backing.store.locked([KEY]) as scope:
                value = int(scope.values.get(KEY, b"0"))
                await asyncio.sleep(0.002)
                await scope.flush(FlushBatch(epoch, number, values={KEY: str(value + 1).encode()}))

    await asyncio.gather(*(increment(epoch) for epoch in epochs))
    assert await backing.eye.values() == {KEY: b"20"}
