"""How texts become drafts, and drafts texts."""

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from millrace.flows.v1 import flow_pb2
from millrace.flows.v1.flow_pb2 import DOCUMENT_FORMAT_JSON, DOCUMENT_FORMAT_YAML
from msgspec.structs import replace

from chassis.errors import Conflict, Invalid, NotFound
from chassis.identity import Caller, acting_as
from chassis.ids import new_text_id
from flowlang.documents import read_json, read_yaml, write_json
from flowlang.model import Flow
from tests.flowlang import strategies
from tests.services.flows.running import HOOK, Flows, code, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOWHERE = new_text_id()


async def imported(
    flows: Flows, caller: Caller, text: bytes, flow_id: str = "", form: int = 0, seen: int = 0
) -> flow_pb2.ImportFlowResponse:
    request = flow_pb2.ImportFlowRequest(
        flow_id=flow_id,
        document=text,
        format=form,  # type: ignore[arg-type]  # a number of the enum
        seen_revision=seen,
    )
    with acting_as(caller):
        response: flow_pb2.ImportFlowResponse = await flows.flows.ImportFlow(request)
    return response


async def exported(
    flows: Flows, caller: Caller, flow_id: str, form: int = DOCUMENT_FORMAT_JSON, version_id: str = ""
) -> flow_pb2.ExportFlowResponse:
    request = flow_pb2.ExportFlowRequest(
        flow_id=flow_id,
        format=form,  # type: ignore[arg-type]  # a number of the enum
        version_id=version_id,
    )
    with acting_as(caller):
        response: flow_pb2.ExportFlowResponse = await flows.flows.ExportFlow(request)
    return response


async def test_a_flow_without_a_document_has_an_empty_draft(flows: Flows) -> None:
    caller = member()
    created = await flows.create(caller, name="  Orders ")
    assert created.flow.name == "Orders"
    assert created.flow.state == flow_pb2.FLOW_STATE_DISABLED
    assert created.flow.draft_revision == 1
    assert not created.flow.draft_valid
    assert [fault.reason for fault in created.faults] == ["TRIGGER_MISSING"]
    draft = await flows.draft(caller, created.flow.id)
    assert json.loads(draft.document) == {"schema": 1, "name": "Orders"}
    assert list(draft.faults) == list(created.faults)
    assert await flows.flow(caller, created.flow.id) == created.flow


async def test_a_flow_with_a_document_keeps_it_and_its_name(flows: Flows) -> None:
    caller = member()
    created = await flows.create(caller, document(code("one"), name="From a document"))
    assert created.flow.name == "From a document"
    assert created.flow.draft_valid
    assert not created.faults
    draft = await flows.draft(caller, created.flow.id)
    assert json.loads(draft.document)["steps"][0]["id"] == "one"


async def test_a_given_name_counts_before_that_of_the_document(flows: Flows) -> None:
    caller = member()
    created = await flows.create(caller, document(name="Old"), name="New")
    assert created.flow.name == "New"
    assert json.loads((await flows.draft(caller, created.flow.id)).document)["name"] == "New"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        (b'{"name": "x",\n  "steps": [}', 2, 13),
        (b'{"name": "x",\n "triggers": [],\n "steps": [{"id": "a", "kind": "dance"}]}', 3, 32),
        (b"[]", 1, 1),
        (b'{"schema": 99, "name": "x"}', 0, 0),
        (b'{"name": "\xff"}', 1, 11),
    ],
)
async def test_a_document_that_cannot_be_read_is_refused_with_the_place(
    flows: Flows, text: bytes, line: int, column: int
) -> None:
    with pytest.raises(Invalid) as refused:
        await flows.create(member(), text)
    assert refused.value.reason == "DOCUMENT_INVALID"
    assert (refused.value.details["line"], refused.value.details["column"]) == (line, column)
    assert (f"line {line}" in refused.value.message) == bool(line)


@pytest.mark.parametrize("name", ["   ", "x" * 201, "a\0b", "a\x1b]0;b", "a\nb", "a\x9bb"])
async def test_a_new_flow_needs_a_name(flows: Flows, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        await imported(flows, member(), document(name=name))
    assert refused.value.reason == "NAME_INVALID"
    assert refused.value.faults[0].field == "name"


@pytest.mark.parametrize("form", [DOCUMENT_FORMAT_JSON, DOCUMENT_FORMAT_YAML])
async def test_what_was_exported_can_be_imported_and_is_the_same(flows: Flows, form: int) -> None:
    caller = member()
    source = "export const code = async ({ a }) => {\n  return `${a}` // ü\n}\n"
    original = document(code("one", source, input={"a": "{{trigger.body.x}}"}), name="Round trip", note="yes\nno")
    first = (await flows.create(caller, original)).flow.id
    text = (await exported(flows, caller, first, form)).document
    second = (await imported(flows, caller, text)).flow.id
    assert second != first
    assert (await flows.draft(caller, second)).document == (await flows.draft(caller, first)).document
    assert (await exported(flows, caller, second, form)).document == text
    read = json.loads(text) if form == DOCUMENT_FORMAT_JSON else yaml.safe_load(text)
    assert read["steps"][0]["source"] == source


@pytest.mark.parametrize(
    ("name", "form", "file_name"),
    [
        ("Paid orders → the Warehouse!", DOCUMENT_FORMAT_YAML, "paid-orders-the-warehouse.yaml"),
        ("../..", DOCUMENT_FORMAT_JSON, "flow.json"),
        ("x" * 59 + " y", 0, "x" * 59 + ".json"),
    ],
)
async def test_an_export_suggests_a_file_name(flows: Flows, name: str, form: int, file_name: str) -> None:
    caller = member()
    flow_id = (await flows.create(caller, name=name)).flow.id
    assert (await exported(flows, caller, flow_id, form)).file_name == file_name


async def test_an_import_replaces_the_draft_of_a_flow(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, name="Before")).flow.id
    response = await imported(
        flows, caller, b"name: After\ntriggers: [{id: hook, piece: webhook, event: catch}]\n", flow_id, seen=1
    )
    assert response.flow.id == flow_id
    assert (response.flow.name, response.flow.draft_revision, response.flow.draft_valid) == ("After", 2, True)
    assert json.loads((await flows.draft(caller, flow_id)).document)["triggers"] == [HOOK]


async def test_an_import_on_an_older_revision_is_refused(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, name="Draft")).flow.id
    await imported(flows, caller, document(name="Second"), flow_id)
    with pytest.raises(Conflict) as refused:
        await imported(flows, caller, document(name="Third"), flow_id, seen=1)
    assert refused.value.reason == "DRAFT_STALE"
    assert refused.value.details == {"current_revision": 2}
    assert (await flows.flow(caller, flow_id)).name == "Second"


async def test_an_import_that_cannot_be_read_says_where_and_changes_nothing(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, name="Draft")).flow.id
    with pytest.raises(Invalid) as refused:
        await imported(flows, caller, b"name: x\nsteps:\n  - {id: a, kind: code, source: 1}\n", flow_id)
    assert refused.value.reason == "DOCUMENT_INVALID"
    assert refused.value.details["line"] == 3
    assert (await flows.flow(caller, flow_id)).draft_revision == 1


async def test_faults_in_steps_do_not_keep_a_document_out(flows: Flows) -> None:
    response = await imported(flows, member(), document(code("one", "not code")))
    assert not response.flow.draft_valid
    assert {(fault.step_id, fault.field) for fault in response.faults} == {("one", "source")}


async def test_a_published_version_can_be_exported(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document(name="Published"))
    version_id = (await flows.flow(caller, flow_id)).published_version_id
    await imported(flows, caller, document(name="Draft"), flow_id)
    text = (await exported(flows, caller, flow_id, version_id=version_id)).document
    assert json.loads(text)["name"] == "Published"
    assert json.loads((await exported(flows, caller, flow_id)).document)["name"] == "Draft"


@pytest.mark.parametrize("version_id", [NOWHERE])
async def test_exporting_what_is_not_there(flows: Flows, version_id: str) -> None:
    caller = member()
    flow_id = (await flows.create(caller, name="Draft")).flow.id
    with pytest.raises(NotFound) as refused:
        await exported(flows, caller, flow_id, version_id=version_id)
    assert refused.value.reason == "VERSION_NOT_FOUND"
    with pytest.raises(Invalid):
        await exported(flows, caller, flow_id, version_id="none")
    with pytest.raises(Invalid):
        await imported(flows, caller, document(), "none")


async def test_a_name_may_hold_whatever_can_be_seen(flows: Flows) -> None:
    name = "<b>Größe</b> 'x'; -- 👩\u200d🚀 ‮ قائمة"
    created = await flows.create(member(), document(name=name))
    assert created.flow.name == name


async def test_documents_are_stored_packed(flows: Flows) -> None:
    caller = member()
    big = document(code("one", "export const code = () => 1 // " + "x" * 50_000))
    flow_id = (await flows.create(caller, big)).flow.id
    assert await flows.database.fetchval("SELECT octet_length(draft) FROM flows.flow WHERE id = $1", flow_id) < 5_000
    assert len((await flows.draft(caller, flow_id)).document) > 50_000


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(flow=strategies.flows)
async def test_whatever_can_be_read_is_kept_as_it_is(flows: Flows, flow: Flow) -> None:
    """However many faults it has: random documents with odd names, texts and numbers."""
    caller = member()
    flow_id = (await flows.create(caller, write_json(flow), name="Random")).flow.id
    kept = replace(flow, name="Random")
    assert (await flows.draft(caller, flow_id)).document == write_json(kept)
    for form in (DOCUMENT_FORMAT_JSON, DOCUMENT_FORMAT_YAML):
        text = (await exported(flows, caller, flow_id, form)).document
        assert (read_json(text) if form == DOCUMENT_FORMAT_JSON else read_yaml(text)) == kept
