"""What flows asks the executor that will run a draft, how often, and what happens while it is away."""

import pytest

from chassis.errors import Unavailable
from chassis.ids import new_text_id
from tests.services.flows.running import Flows, code, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")


def unseen() -> str:
    """A source that nothing has looked at before."""
    return f"export const code = () => '{new_text_id()}'"


async def test_the_catalogue_is_asked_for_once_a_minute(flows: Flows) -> None:
    await flows.create(member(), document())
    flows.judge.asked.clear()
    await flows.create(member(), document())
    assert flows.judge.asked == []
    flows.clock.advance(61)
    await flows.create(member(), document())
    assert flows.judge.asked == ["catalogue"]


async def test_a_text_is_parsed_once(flows: Flows) -> None:
    caller, good, bad = member(), unseen(), f"{unseen()} ("
    created = await flows.create(caller, document(code("one", good), code("two", good), code("three", bad)))
    assert [fault.step_id for fault in created.faults] == ["three"]
    flows.judge.asked.clear()
    new = unseen()
    edited = await flows.edit(caller, created.flow.id, 1, {"op": "add_step", "step": code("four", new)})
    assert flows.judge.asked == [new]
    assert list(edited.faults) == list(created.faults)


async def test_the_same_text_is_judged_by_its_kind(flows: Flows) -> None:
    typed = f"export const code = (x: number) => x // {new_text_id()}"
    steps = [code("one", typed, language="typescript"), code("two", typed, language="javascript")]
    created = await flows.create(member(), document(*steps))
    assert [(fault.step_id, fault.reason) for fault in created.faults] == [("two", "SYNTAX_ERROR")]


async def test_while_the_executor_is_away_what_it_has_seen_can_be_edited_and_published(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document(code("one", unseen())))).flow.id
    flows.judge.away = True
    flows.clock.advance(61)
    try:
        edited = await flows.edit(caller, flow_id, 1, {"op": "set_note", "id": "one", "note": "x"})
        assert not edited.faults
        async with flows.consumer(flow_id):
            assert (await flows.publish(caller, flow_id)).flow.published_version_number == 1
        with pytest.raises(Unavailable) as refused:
            await flows.edit(caller, flow_id, 2, {"op": "add_step", "step": code("two", unseen())}, edit_id="e")
        assert refused.value.reason == "SERVICE_AWAY"
        assert (await flows.draft(caller, flow_id)).revision == 2
    finally:
        flows.judge.away = False
    edited = await flows.edit(caller, flow_id, 2, {"op": "add_step", "step": code("two", unseen())}, edit_id="e")
    assert edited.revision == 3


async def test_many_texts_are_sent_in_parts(flows: Flows) -> None:
    steps = [code(f"s{number}", f"export const code = () => {number}.5") for number in range(700)]
    flows.judge.asked.clear()
    created = await flows.create(member(), document(*steps))
    assert not created.faults
    assert len(flows.judge.asked) == 700


async def test_a_source_that_is_too_big_is_not_sent(flows: Flows) -> None:
    flows.judge.asked.clear()
    created = await flows.create(member(), document(code("one", f"{unseen()} // {'x' * 300_000}")))
    assert [fault.reason for fault in created.faults] == ["SOURCE_TOO_BIG"]
    assert flows.judge.asked == []
