"""What every `services.executor.store.Store` promises the heart of the executor, the dark promises above all.

What guards an invariant stands in executor_store_promises.py: the tests at the end take the safeguard away from the
adapter, and then that same promise must break.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from chassis.errors import Unavailable
from chassis.migrations import migrate
from services.executor import postgres_store
from services.executor.store import Fenced, FlushBatch, FlushRefused, Position, RunStatus, StoreKey
from tests.contracts.executor_store_promises import (
    keeps_a_run_id_for_the_first,
    loses_no_increment,
    refuses_a_chunk_that_exists,
    refuses_a_dead_incarnation,
    refuses_a_position_moved_by_another,
    refuses_a_wrong_flush_number,
    refuses_the_claim_of_a_dead_incarnation,
    refuses_to_end_the_run_of_another,
    takes_over_only_who_stood_still,
)
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
    on_postgres,
    on_simulation,
    project,
    without_safeguard,
)
from tests.simulation.sim_store import Mutations

Check = Callable[[Backing], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor_url(new_database_url: Callable[[], str]) -> str:
    """A database with the executor's schema; each test finds it empty."""
    url = new_database_url()
    await migrate(url, "executor")
    return url


@pytest.fixture(params=["postgres", "simulation"])
def opened(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Backing]:
    """Each adapter in turn."""
    if request.param == "postgres":
        return on_postgres(request.getfixturevalue("executor_url"))
    return on_simulation()


@pytest.fixture
async def backing(opened: AbstractAsyncContextManager[Backing]) -> AsyncIterator[Backing]:
    """A store with nothing in it."""
    async with opened as made:
        yield made


# The flush


@pytest.mark.parametrize(
    "check",
    [
        refuses_a_dead_incarnation,
        refuses_a_wrong_flush_number,
        refuses_a_position_moved_by_another,
        refuses_a_chunk_that_exists,
        refuses_to_end_the_run_of_another,
        keeps_a_run_id_for_the_first,
    ],
)
async def test_a_flush(check: Check, backing: Backing) -> None:
    await check(backing)


async def test_a_flush_writes_everything_at_once(backing: Backing) -> None:
    epoch = await backing.began()
    await backing.position(5)
    at_once, going_on, waiting = new_run(end=ended()), new_run(), new_run(status=RunStatus.QUEUED)
    first = FlushBatch(epoch, 1, [move(5, 9)], [at_once, going_on, waiting], values={KEY: b"1"})
    assert await backing.store.flush(first) == set()
    assert [await backing.eye.status(run.identity.run_id) for run in (at_once, going_on, waiting)] == [
        RunStatus.SUCCEEDED,
        RunStatus.RUNNING,
        RunStatus.QUEUED,
    ]
    assert await backing.eye.owner(going_on.identity.run_id) == epoch
    assert await backing.eye.owner(waiting.identity.run_id) is None
    assert await backing.store.positions(TOPIC) == {0: Position(EPOCH, 9)}

    failed = ended(RunStatus.FAILED)
    await backing.store.flush(FlushBatch(epoch, 2, runs=[later(going_on, 1, b"chunk 1", failed)]))
    assert await backing.eye.journal(going_on.identity.run_id) == [b"chunk 0", b"chunk 1"]
    assert await backing.eye.status(going_on.identity.run_id) is RunStatus.FAILED
    assert await backing.eye.values() == {KEY: b"1"}


async def test_an_empty_flush_is_a_beat(backing: Backing) -> None:
    epoch = await backing.began()
    ((_, before),) = await backing.store.beats()
    await backing.store.flush(FlushBatch(epoch, 1))
    assert await backing.store.beats() == [(epoch, before + 1)]


async def test_last_flush_tells_number_and_duplicates_of_the_newest_commit(backing: Backing) -> None:
    epoch = await backing.began()
    run = new_run()
    assert await backing.store.last_flush(epoch) == (0, set())
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    await backing.store.flush(FlushBatch(epoch, 2, runs=[run]))
    assert await backing.store.last_flush(epoch) == (2, {run.identity.run_id})
    await backing.store.flush(FlushBatch(epoch, 3, runs=[new_run()]))
    assert await backing.store.last_flush(epoch) == (3, set())
    await backing.kill(epoch)
    with pytest.raises(Fenced):
        await backing.store.last_flush(epoch)


# Taking over


async def test_only_an_incarnation_that_stood_still_is_taken_over(backing: Backing) -> None:
    await takes_over_only_who_stood_still(backing)


async def test_a_take_over_queues_the_runs_and_fences_their_owner(backing: Backing) -> None:
    epoch, other = await backing.began(), await backing.began()
    running, done, elsewhere = new_run(), new_run(end=ended()), new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[running, done]))
    await backing.store.flush(FlushBatch(other, 1, runs=[elsewhere]))
    assert await backing.kill(epoch) == 1
    assert await backing.eye.status(running.identity.run_id) is RunStatus.QUEUED
    assert await backing.eye.status(done.identity.run_id) is RunStatus.SUCCEEDED
    assert await backing.eye.owner(elsewhere.identity.run_id) == other
    assert [beat.epoch for beat in await backing.store.beats()] == [other]
    with pytest.raises(Fenced):
        await backing.store.flush(FlushBatch(epoch, 2))
    with pytest.raises(Fenced):
        await backing.store.claim(epoch, claim())
    assert await backing.store.take_over(epoch, 1) is None, "a dead one is not taken over twice"
    assert await backing.store.take_over(999, 0) is None


async def test_an_incarnation_that_hands_over_is_fenced_and_its_runs_count_no_death(backing: Backing) -> None:
    epoch, other = await backing.began(), await backing.began()
    run = new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    assert await backing.store.hand_over(epoch) == 1
    assert await backing.store.hand_over(epoch) is None, "nobody ends twice"
    with pytest.raises(Fenced):
        await backing.store.flush(FlushBatch(epoch, 2))
    (taken,) = await backing.store.claim(other, claim())
    assert not taken.begun, "the run was handed over between two steps"
    assert await backing.kill(other) == 1
    third = await backing.began()
    (taken,) = await backing.store.claim(third, claim())
    assert taken.begun, "this time somebody died over it"


async def test_a_sole_executor_takes_all_up_at_once(backing: Backing) -> None:
    epoch = await backing.began()
    run = new_run()
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    after = await backing.store.begin_incarnation("after", sole=True)
    assert after > epoch
    assert [beat.epoch for beat in await backing.store.beats()] == [after]
    assert await backing.eye.status(run.identity.run_id) is RunStatus.QUEUED
    with pytest.raises(Fenced):
        await backing.store.flush(FlushBatch(epoch, 2))


# Claiming


async def test_a_dead_incarnation_claims_nothing(backing: Backing) -> None:
    await refuses_the_claim_of_a_dead_incarnation(backing)


async def test_a_claim_takes_queued_runs_in_hand_with_their_journals(backing: Backing) -> None:
    epoch = await backing.began()
    run = new_run(status=RunStatus.QUEUED)
    await backing.store.flush(FlushBatch(epoch, 1, runs=[run]))
    (taken,) = await backing.store.claim(epoch, claim())
    assert (taken.identity, taken.started_at_ms, taken.begun, taken.chunks) == (run.identity, None, False, [b"chunk 0"])
    assert await backing.eye.owner(run.identity.run_id) == epoch
    assert await backing.eye.status(run.identity.run_id) is RunStatus.RUNNING
    assert await backing.store.claim(epoch, claim(2)) == []


async def test_projects_take_turns_and_each_gives_its_oldest_first(backing: Backing) -> None:
    epoch = await backing.began()
    flood, second, third = project(1), project(2), project(3)
    many = await backing.queued(epoch, 1, *[flood] * 5)
    few = await backing.queued(epoch, 2, second, third, third)
    taken = await backing.store.claim(epoch, claim(limit=4, per_project=2))
    assert {run.identity.run_id for run in taken} == {*many[:2], *few[:2]}
    rest = await backing.store.claim(epoch, claim(2, limit=100, per_project=50))
    assert {run.identity.run_id for run in rest} == {*many[2:], few[2]}


async def test_room_for_one_run_at_a_time_serves_all_projects_alike(backing: Backing) -> None:
    """A flood in the project with the smallest id took every free place, however long others waited."""
    epoch = await backing.began()
    await backing.queued(epoch, 1, *[project(1)] * 4, *[project(2)] * 2, project(3))
    served: list[str] = []
    for number in range(7):
        (taken,) = await backing.store.claim(epoch, claim(number, limit=1, after=served[-1] if served else None))
        served.append(taken.identity.project_id)
    assert served == [project(number) for number in (1, 2, 3, 1, 2, 1, 1)]


async def test_a_claim_asked_for_again_answers_the_same_runs(backing: Backing) -> None:
    epoch = await backing.began()
    run_ids = set(await backing.queued(epoch, 1, PROJECT, PROJECT, PROJECT))
    first = await backing.store.claim(epoch, claim(1, limit=2))
    again = await backing.store.claim(epoch, claim(1, again=True, limit=2))
    assert {run.identity.run_id for run in again} == {run.identity.run_id for run in first}
    assert [run.begun for run in again] == [False, False], "being asked again is no second claim"
    (other,) = await backing.store.claim(epoch, claim(2, again=True, limit=2))
    assert {other.identity.run_id} == run_ids - {run.identity.run_id for run in first}, "it had taken nothing before"


async def test_two_incarnations_never_claim_one_run(backing: Backing) -> None:
    one, two = await backing.began(), await backing.began()
    run_ids = await backing.queued(one, 1, *[PROJECT] * 40)
    claims = await asyncio.gather(*(backing.store.claim(epoch, claim(limit=20)) for epoch in (one, two)))
    taken = [run.identity.run_id for runs in claims for run in runs]
    while rest := await backing.store.claim(two, claim(len(taken))):
        taken += [run.identity.run_id for run in rest]
    assert sorted(taken) == sorted(run_ids)


async def test_claims_after_the_first_count_as_begun(backing: Backing) -> None:
    """Somebody may have died over it before anything of it was durable (I4)."""
    one = await backing.began()
    await backing.queued(one, 1, PROJECT)
    (first,) = await backing.store.claim(one, claim())
    await backing.kill(one)
    two = await backing.began()
    (second,) = await backing.store.claim(two, claim())
    assert (first.begun, second.begun) == (False, True)


async def test_a_run_that_had_started_counts_as_begun(backing: Backing) -> None:
    one = await backing.began()
    await backing.store.flush(FlushBatch(one, 1, runs=[new_run()]))
    await backing.kill(one)
    (taken,) = await backing.store.claim(await backing.began(), claim())
    assert (taken.begun, taken.started_at_ms) == (True, 1_000)


# Values of the store piece


async def test_a_scope_sees_the_values_of_its_keys_and_changes_them_with_the_flush(backing: Backing) -> None:
    epoch = await backing.began()
    other, of_flow = StoreKey(PROJECT, "", "other"), StoreKey(PROJECT, "flow", "counter")
    await backing.store.flush(FlushBatch(epoch, 1, values={KEY: b"1", of_flow: b"7"}))
    async with backing.store.locked([KEY, other]) as scope:
        assert dict(scope.values) == {KEY: b"1"}
        await scope.flush(FlushBatch(epoch, 2, values={KEY: b"2", other: b"3"}))
    async with backing.store.locked([KEY, other, of_flow]) as scope:
        assert dict(scope.values) == {KEY: b"2", other: b"3", of_flow: b"7"}


async def test_a_value_is_deleted_by_none(backing: Backing) -> None:
    epoch = await backing.began()
    await backing.store.flush(FlushBatch(epoch, 1, values={KEY: b"1"}))
    async with backing.store.locked([KEY]) as scope:
        await scope.flush(FlushBatch(epoch, 2, values={KEY: None}))
    async with backing.store.locked([KEY]) as scope:
        assert dict(scope.values) == {}
        await scope.flush(FlushBatch(epoch, 3, values={KEY: None}))  # emptying what is empty is no fault
    assert await backing.eye.values() == {}


async def test_two_scopes_on_one_key_wait_for_each_other(backing: Backing) -> None:
    await loses_no_increment(backing)


async def test_who_stands_still_in_a_scope_loses_it(executor_url: str) -> None:
    """A frozen executor held the lock of a key, and with it every flush of every other one that used the key."""
    async with on_postgres(executor_url) as backing:
        first, second = await backing.began(), await backing.began()
        with pytest.raises(Unavailable):
            async with backing.store.locked([KEY]) as frozen:
                async with asyncio.timeout(10), backing.store.locked([KEY]) as scope:
                    await scope.flush(FlushBatch(second, 1, values={KEY: b"2"}))
                await frozen.flush(FlushBatch(first, 1, values={KEY: b"1"}))
        assert await backing.eye.values() == {KEY: b"2"}


async def test_scopes_on_several_keys_never_wait_in_a_circle(backing: Backing) -> None:
    epochs = [await backing.began() for _ in range(2)]
    keys = [StoreKey(PROJECT, "", f"key {number}") for number in range(6)]

    async def change(epoch: int, order: list[StoreKey]) -> None:
        for number in range(1, 6):
            async with backing.store.locked(order) as scope:
                await asyncio.sleep(0.001)
                await scope.flush(FlushBatch(epoch, number, values=dict.fromkeys(order, b"1")))

    async with asyncio.timeout(20):
        await asyncio.gather(change(epochs[0], keys), change(epochs[1], keys[::-1]))


async def test_a_scope_left_by_an_error_changes_nothing(backing: Backing) -> None:
    epoch = await backing.began()
    run = new_run()
    with pytest.raises(ZeroDivisionError):
        async with backing.store.locked([KEY]) as scope:
            await scope.flush(FlushBatch(epoch, 1, runs=[run], values={KEY: b"1"}))
            raise ZeroDivisionError
    assert await backing.eye.values() == {}
    assert await backing.eye.journal(run.identity.run_id) == []
    assert await backing.store.last_flush(epoch) == (0, set())


async def test_a_scope_of_a_dead_incarnation_is_fenced(backing: Backing) -> None:
    epoch = await backing.began()
    await backing.kill(epoch)
    with pytest.raises(Fenced):
        async with backing.store.locked([KEY]) as scope:
            await scope.flush(FlushBatch(epoch, 1, values={KEY: b"1"}))
    assert await backing.eye.values() == {}


# Positions


async def test_a_position_is_set_by_who_saw_what_stands(backing: Backing) -> None:
    store = backing.store
    assert await store.positions(TOPIC) == {}
    assert await store.start_position(TOPIC, 0, None, Position(EPOCH, 5)) == Position(EPOCH, 5)
    assert await store.start_position(TOPIC, 0, None, Position("late", 0)) == Position(EPOCH, 5)
    assert await store.start_position(TOPIC, 0, Position(EPOCH, 4), Position("late", 0)) == Position(EPOCH, 5)
    assert await store.start_position(TOPIC, 0, Position(EPOCH, 5), Position("anew", 0)) == Position("anew", 0)
    await store.start_position("other", 0, None, Position("x", 1))
    assert await store.positions(TOPIC) == {0: Position("anew", 0)}


# Each safeguard, taken away


# Text of the adapter's own SQL, what stands there without the safeguard, and the check that must notice.
WITHOUT: dict[str, tuple[str, str, str, Check]] = {
    "incarnation": ("flush_v1", "AND alive AND flush_no", "AND flush_no", refuses_a_dead_incarnation),
    "flush number": ("flush_v1", "AND flush_no = p_flush_no - 1", "", refuses_a_wrong_flush_number),
    "position": (
        "flush_v1",
        "AND p.log_epoch = m.log_epoch AND p.next_offset = m.seen_offset",
        "",
        refuses_a_position_moved_by_another,
    ),
    "position, told": (
        "flush_v1",
        "IF moved <> cardinality(p_topic) THEN",
        "IF false THEN",
        refuses_a_position_moved_by_another,
    ),
    "chunk": (
        "flush_v1",
        "SELECT * FROM unnest(c_run, c_no, c_chunk)",
        "SELECT * FROM unnest(c_run, c_no, c_chunk) ON CONFLICT DO NOTHING",
        refuses_a_chunk_that_exists,
    ),
    "owner": ("flush_v1", "AND l.owner_epoch = p_epoch", "", refuses_to_end_the_run_of_another),
    "run id": ("flush_v1", "FROM fresh JOIN stored USING (run_id)", "FROM fresh", keeps_a_run_id_for_the_first),
    "claim": ("claim_v1", "epoch = p_epoch AND alive", "epoch = p_epoch", refuses_the_claim_of_a_dead_incarnation),
    "beat": ("take_over_v1", "AND beat = p_beat", "", takes_over_only_who_stood_still),
}


@pytest.mark.parametrize("safeguard", WITHOUT)
async def test_without_a_safeguard_of_its_sql_postgres_breaks_the_promise(safeguard: str, executor_url: str) -> None:
    function, text, without, check = WITHOUT[safeguard]
    async with on_postgres(executor_url) as backing:
        await check(backing)
    async with without_safeguard(executor_url, function, text, without) as backing:
        with pytest.raises((AssertionError, pytest.fail.Exception, FlushRefused)):
            await check(backing)


async def test_without_locks_on_keys_an_increment_is_lost(executor_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_store, "LOCK_KEYS", "SELECT $1::uuid[], $2::text[], $3::text[]")
    async with on_postgres(executor_url) as backing:
        with pytest.raises(AssertionError):
            await loses_no_increment(backing)


@pytest.mark.parametrize(
    ("mutations", "check"),
    [
        (Mutations(no_fence=True), refuses_a_dead_incarnation),
        (Mutations(no_fence=True), refuses_a_wrong_flush_number),
        (Mutations(no_fence=True), refuses_to_end_the_run_of_another),
        (Mutations(no_position_check=True), refuses_a_position_moved_by_another),
    ],
)
async def test_without_a_safeguard_the_simulation_breaks_the_promise(mutations: Mutations, check: Check) -> None:
    async with on_simulation(mutations) as backing:
        with pytest.raises((AssertionError, pytest.fail.Exception, KeyError)):
            await check(backing)
