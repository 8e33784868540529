"""Flows, drafts and versions, as REST shows and takes them.

Documents and operations pass through unopened: their vocabulary is flowlang's, and flows checks it.

Decides: names of fields and examples. Leaves: rules beyond types to flows.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from millrace.flows.v1 import draft_pb2, flow_pb2, version_pb2
from msgspec import Meta
from pydantic import Field

from gateway.queries import PageQuery
from gateway.schemas.common import Json, Model, enum_views, example, json_view, time_view

DOCUMENT_EXAMPLE = {
    "name": "Greet",
    "schema": 1,
    "triggers": [{"id": "hook", "piece": "webhook", "event": "catch"}],
    "steps": [{"kind": "respond", "id": "answer", "body": "hello {{ trigger.body.name }}"}],
}
_FLOW = {
    "id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e04",
    "name": "Greet",
    "state": "enabled",
    "published_version_id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e05",
    "published_version_number": 1,
    "draft_revision": 3,
    "draft_valid": True,
    "failure": "",
    "created_at": "2026-01-05T09:32:00Z",
    "updated_at": "2026-01-05T09:35:00Z",
}
_DRAFT = {
    "flow_id": _FLOW["id"],
    "revision": 3,
    "document": DOCUMENT_EXAMPLE,
    "faults": [],
    "updated_at": "2026-01-05T09:35:00Z",
}
_VERSION = {
    "id": _FLOW["published_version_id"],
    "flow_id": _FLOW["id"],
    "number": 1,
    "published_at": "2026-01-05T09:35:00Z",
    "published_by": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e01",
}

_STATES = enum_views(flow_pb2.FlowState.DESCRIPTOR, "FLOW_STATE_")
FlowStateWord = Literal["disabled", "enabling", "enabled", "enable_failed"]

MAX_INT64 = 2**63 - 1


class FlowsQuery(PageQuery):
    """Which flows to list."""

    name_contains: Annotated[
        str, Meta(max_length=200, description="Only flows whose name contains this text, case ignored.")
    ] = ""


class CreateFlowBody(msgspec.Struct, forbid_unknown_fields=True):
    """A new flow: a name, a document, or both."""

    name: Annotated[
        str, Meta(max_length=200, description="Empty only with a document, whose name then counts.", examples=["Greet"])
    ] = ""
    document: Annotated[
        msgspec.Raw,
        Meta(
            description="A flow document; faults in its steps are kept in the draft.",
            extra_json_schema={"type": ["object", "null"], "examples": [DOCUMENT_EXAMPLE]},
        ),
    ] = msgspec.field(default_factory=msgspec.Raw)


class EditDraftBody(msgspec.Struct, forbid_unknown_fields=True):
    """Operations on a draft, applied in order, all or none."""

    seen_revision: Annotated[
        int, Meta(ge=1, le=MAX_INT64, description="The revision that the operations were made on.", examples=[3])
    ]
    operations: Annotated[
        list[msgspec.Raw],
        Meta(
            min_length=1,
            max_length=200,
            description="One object each, told apart by `op`; 1 MiB together.",
            extra_json_schema={
                "items": {"type": "object", "required": ["op"], "properties": {"op": {"type": "string"}}},
                "examples": [[{"op": "rename", "name": "Greet politely"}]],
            },
        ),
    ]
    edit_id: Annotated[
        str,
        Meta(max_length=64, description="Chosen by the client; makes the call safe to repeat.", examples=["e-7f3a"]),
    ] = ""


class PublishBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which draft to publish."""

    seen_revision: Annotated[
        int,
        Meta(ge=0, le=MAX_INT64, description="The revision the caller has seen; 0 publishes any.", examples=[3]),
    ] = 0


class Fault(Model):
    """One thing that must be mended before a draft can be published."""

    step_id: str = Field(description="The step or trigger it is about; empty for the flow itself.")
    field: str = Field(description="The field inside the step, as a path.")
    message: str = Field(description="What is wrong and what to do.")
    reason: str = Field(description="Stable name of the kind of fault.")


class Flow(Model):
    """A flow, without its document."""

    model_config = example(_FLOW)
    id: str = Field(description="UUIDv7.")
    name: str = Field(description="From the draft's document.")
    state: FlowStateWord = Field(description="Where it stands between draft and live.")
    published_version_id: str = Field(description="The live version, empty if none is live.")
    published_version_number: int = Field(description="Counted from 1; 0 if none is live.")
    draft_revision: int = Field(description="Grows with every edit of the draft.")
    draft_valid: bool = Field(description="Whether the draft validates.")
    failure: str = Field(description="Why enabling failed; empty otherwise.")
    created_at: datetime = Field(description="When it was created.")
    updated_at: datetime = Field(description="When flow or draft last changed.")


class FlowWithFaults(Model):
    """A flow, and what is still to be mended in its draft."""

    model_config = example({"flow": _FLOW, "faults": []})
    flow: Flow
    faults: list[Fault]


class FlowPage(Model):
    """A page of flows, newest first."""

    model_config = example({"flows": [_FLOW], "next_page_token": ""})
    flows: list[Flow]
    next_page_token: str = Field(description="Empty on the last page.")


class Draft(Model):
    """A draft."""

    model_config = example(_DRAFT)
    flow_id: str = Field(description="The flow it belongs to.")
    revision: int = Field(description="Grows by one with every edit.")
    document: dict[str, Any] = Field(description="The flow document.")
    faults: list[Fault] = Field(description="What must be mended before it can be published.")
    updated_at: datetime = Field(description="When it last changed.")


class Sample(Model):
    """What a trigger received when it was last simulated."""

    trigger_id: str = Field(description="The trigger.")
    output: Any = Field(description="The trigger's output.")
    captured_at: datetime = Field(description="When it was captured.")


class DraftWithSamples(Model):
    """A draft and the newest sample of each trigger that has one."""

    model_config = example({"draft": _DRAFT, "samples": []})
    draft: Draft
    samples: list[Sample]


class Version(Model):
    """A published version. Its document is there when it was asked for by itself, not in lists."""

    model_config = example(_VERSION)
    id: str = Field(description="UUIDv7.")
    flow_id: str = Field(description="The flow it belongs to.")
    number: int = Field(description="Counted from 1 within the flow.")
    published_at: datetime = Field(description="When it was published.")
    published_by: str = Field(description="The user who published it.")
    document: dict[str, Any] | None = Field(None, description="The flow document; left out in lists.")


class VersionPage(Model):
    """A page of versions, newest first."""

    model_config = example({"versions": [_VERSION], "next_page_token": ""})
    versions: list[Version]
    next_page_token: str = Field(description="Empty on the last page.")


class Published(Model):
    """A flow and the version that was made of its draft."""

    model_config = example({"flow": _FLOW, "version": _VERSION})
    flow: Flow
    version: Version


def flow_view(flow: flow_pb2.Flow) -> dict[str, Json]:
    """A `Flow`."""
    return {
        "id": flow.id,
        "name": flow.name,
        "state": _STATES[flow.state],
        "published_version_id": flow.published_version_id,
        "published_version_number": flow.published_version_number,
        "draft_revision": flow.draft_revision,
        "draft_valid": flow.draft_valid,
        "failure": flow.failure,
        "created_at": time_view(flow.created_at),
        "updated_at": time_view(flow.updated_at),
    }


def faults_view(faults: Sequence[flow_pb2.Fault]) -> list[dict[str, Json]]:
    """`Fault`s."""
    return [
        {"step_id": fault.step_id, "field": fault.field, "message": fault.message, "reason": fault.reason}
        for fault in faults
    ]


def draft_view(draft: draft_pb2.Draft) -> dict[str, Json]:
    """A `Draft`."""
    return {
        "flow_id": draft.flow_id,
        "revision": draft.revision,
        "document": json_view(draft.document),
        "faults": faults_view(draft.faults),
        "updated_at": time_view(draft.updated_at),
    }


def samples_view(samples: Sequence[draft_pb2.Sample]) -> list[dict[str, Json]]:
    """`Sample`s."""
    return [
        {
            "trigger_id": sample.trigger_id,
            "output": json_view(sample.output),
            "captured_at": time_view(sample.captured_at),
        }
        for sample in samples
    ]


def version_view(version: version_pb2.Version) -> dict[str, Json]:
    """A `Version`, with its document if it has one."""
    view: dict[str, Json] = {
        "id": version.id,
        "flow_id": version.flow_id,
        "number": version.number,
        "published_at": time_view(version.published_at),
        "published_by": version.published_by,
    }
    if version.document:
        view["document"] = json_view(version.document)
    return view
