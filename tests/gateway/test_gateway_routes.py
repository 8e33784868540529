"""Connections, flows, drafts, versions, runs and pieces over HTTP: one walk through each."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from millrace.executor.v1 import run_pb2

from chassis.ids import new_text_id
from gateway.schemas import auth, connections, flows, health, pieces, runs
from gateway.schemas.common import Model
from tests.gateway.running_gateway import Person, RunningGateway
from tests.gateway.test_gateway_auth import refused

DOCUMENT = {
    "schema": 1,
    "name": "Greet",
    "triggers": [{"id": "hook", "piece": "webhook", "event": "catch"}],
    "steps": [{"kind": "respond", "id": "answer", "body": "hello {{ trigger.body.name }}"}],
}


def create_flow(person: Person, document: object = DOCUMENT) -> str:
    answer = person.client.post("/api/v1/flows", json={"document": document})
    assert answer.status_code == 201, answer.text
    flow_id: str = answer.json()["flow"]["id"]
    assert answer.headers["location"] == f"/api/v1/flows/{flow_id}"
    return flow_id


def publish(gateway: RunningGateway, person: Person, flow_id: str, failure: str = "") -> httpx.Response:
    """Publishes while every consumer reports."""
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(person.client.post, f"/api/v1/flows/{flow_id}/publish")
        while not waiting.done():
            if person.client.get(f"/api/v1/flows/{flow_id}").json()["state"] == "enabling":
                gateway.call(gateway.apply_changes(flow_id, failure))
        return waiting.result()


def test_a_connection_lives_without_ever_showing_its_secret(person: Person) -> None:
    made = person.client.post("/api/v1/connections", json={"name": "billing", "secret": "sk-hidden"})
    assert made.status_code == 201
    url = made.headers["location"]
    answers = [
        made,
        person.client.get(url),
        person.client.get("/api/v1/connections"),
        person.client.put(f"{url}/secret", json={"secret": "sk-other"}),
    ]
    assert all(answer.is_success and "sk-" not in answer.text for answer in answers)
    assert answers[2].json()["connections"][0]["name"] == "billing"
    again = person.client.post("/api/v1/connections", json={"name": "billing", "secret": "x"})
    refused(again, 409, "CONNECTION_NAME_TAKEN")
    assert person.client.delete(url).status_code == 204
    refused(person.client.get(url), 404, "CONNECTION_NOT_FOUND")


def test_a_flow_is_made_edited_published_switched_exported_and_deleted(gateway: RunningGateway, person: Person) -> None:
    flow_id = create_flow(person)
    url = f"/api/v1/flows/{flow_id}"
    draft = person.client.get(f"{url}/draft").json()["draft"]
    assert (draft["revision"], draft["faults"]) == (1, [])
    assert draft["document"]["steps"] == DOCUMENT["steps"]

    edit = {"seen_revision": 1, "operations": [{"op": "rename", "name": "Welcome"}], "edit_id": "e1"}
    edited = person.client.patch(f"{url}/draft", json=edit)
    assert (edited.status_code, edited.json()["revision"]) == (200, 2), edited.text
    stale = person.client.patch(f"{url}/draft", json={**edit, "edit_id": "e2"})
    assert refused(stale, 409, "DRAFT_STALE")["current_revision"] == 2

    published = publish(gateway, person, flow_id)
    assert published.status_code == 200, published.text
    assert (published.json()["flow"]["state"], published.json()["version"]["number"]) == ("enabled", 1)
    version = person.client.get(f"{url}/versions").json()["versions"][0]
    assert "document" not in version
    assert person.client.get(f"{url}/versions/{version['id']}").json()["document"]["name"] == "Welcome"

    exported = person.client.get(f"{url}/export", params={"format": "yaml"})
    assert exported.headers["content-type"].startswith("application/yaml")
    assert exported.headers["content-disposition"] == 'attachment; filename="welcome.yaml"'
    as_yaml = {"content-type": "application/yaml"}
    imported = person.client.post("/api/v1/flows/import", content=exported.content, headers=as_yaml)
    assert (imported.status_code, imported.json()["flow"]["name"]) == (201, "Welcome"), imported.text
    replaced = person.client.post("/api/v1/flows/import", params={"flow_id": flow_id}, json=DOCUMENT)
    assert (replaced.status_code, replaced.json()["flow"]["name"]) == (200, "Greet"), replaced.text

    assert [flow["name"] for flow in person.client.get("/api/v1/flows").json()["flows"]] == ["Welcome", "Greet"]
    assert person.client.delete(url).status_code == 204
    refused(person.client.get(url), 404, "FLOW_NOT_FOUND")


def test_a_publish_that_is_still_under_way_is_202_and_one_that_failed_says_why(
    gateway: RunningGateway, person: Person
) -> None:
    waiting = person.client.post(f"/api/v1/flows/{create_flow(person)}/publish", json={"seen_revision": 1})
    assert (waiting.status_code, waiting.json()["flow"]["state"]) == (202, "enabling")
    failed = publish(gateway, person, create_flow(person), failure="The port is closed.")
    assert (failed.status_code, failed.json()["flow"]["state"]) == (200, "enable_failed")
    assert "The port is closed." in failed.json()["flow"]["failure"]


def test_a_draft_with_faults_is_not_published_and_every_fault_is_named(person: Person) -> None:
    steps = [{"kind": "action", "id": "a", "piece": "", "action": ""}, {"kind": "code", "id": "b", "source": ""}]
    flow_id = create_flow(person, {**DOCUMENT, "steps": steps})
    problem = refused(person.client.post(f"/api/v1/flows/{flow_id}/publish"), 422, "DRAFT_INVALID")
    faults = problem["faults"]
    assert isinstance(faults, list)
    assert {"a", "b"} <= {fault["step_id"] for fault in faults}


def test_large_numbers_in_a_document_are_kept_to_the_digit(person: Person) -> None:
    steps = [{"kind": "respond", "id": "answer", "body": 12345678901234567890}]
    flow_id = create_flow(person, {**DOCUMENT, "steps": steps})
    assert "12345678901234567890" in person.client.get(f"/api/v1/flows/{flow_id}/draft").text


def test_what_belongs_to_another_project_does_not_exist(gateway: RunningGateway, person: Person) -> None:
    flow_id, other = create_flow(person), gateway.person()
    url = f"/api/v1/flows/{flow_id}"
    edit = {"seen_revision": 1, "operations": [{"op": "rename", "name": "Stolen"}]}
    answers = [
        other.client.get(url),
        other.client.delete(url),
        other.client.get(f"{url}/draft"),
        other.client.patch(f"{url}/draft", json=edit),
        other.client.post(f"{url}/publish"),
        other.client.post(f"{url}/enable"),
        other.client.post(f"{url}/disable"),
        other.client.get(f"{url}/versions"),
        other.client.get(f"{url}/export"),
        other.client.post("/api/v1/flows/import", params={"flow_id": flow_id}, json=DOCUMENT),
    ]
    for answer in answers:
        refused(answer, 404, "FLOW_NOT_FOUND")
    assert other.client.get("/api/v1/flows").json()["flows"] == []


def test_runs_are_listed_by_filter_and_shown_with_their_steps(gateway: RunningGateway, person: Person) -> None:
    run = run_pb2.Run(
        id=new_text_id(),
        flow_id=new_text_id(),
        version_id=new_text_id(),
        trigger_id="hook",
        status=run_pb2.RUN_STATUS_FAILED,
        started_at=Timestamp(seconds=1_700_000_000, nanos=12_000_000),
        error=run_pb2.RunError(step_id="fetch", indices=[2], attempt=3, kind="HTTP_STATUS", message="It said 500."),
        steps_finished=1,
    )
    step = run_pb2.StepRun(
        step_id="fetch", indices=[2], attempt=3, status=run_pb2.STEP_STATUS_FAILED, input=b'{"n":1e400}', console=["hi"]
    )
    told = run_pb2.GetRunResponse(run=run, trigger_output=b'{"body":{}}', steps=[step])
    gateway.executor.runs[person.project_id] = {run.id: told}

    listed = person.client.get(
        "/api/v1/runs", params={"status": ["failed", "timed_out"], "flow_id": run.flow_id}
    ).json()
    assert listed["runs"][0]["status"] == "failed"
    assert listed["runs"][0]["started_at"] == "2023-11-14T22:13:20.012000Z"
    assert listed["runs"][0]["finished_at"] is None
    asked = gateway.executor.asked[-1]
    assert list(asked.statuses) == [run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_TIMED_OUT]
    assert asked.flow_id == run.flow_id

    shown = person.client.get(f"/api/v1/runs/{run.id}")
    assert '"input":{"n":1e400}' in shown.text  # passed through as it is
    assert shown.json()["run"]["error"]["kind"] == "HTTP_STATUS"
    assert shown.json()["steps"][0]["output"] is None
    refused(gateway.person().client.get(f"/api/v1/runs/{run.id}"), 404, "RUN_NOT_FOUND")


def test_pieces_are_listed_as_the_executor_describes_them(person: Person) -> None:
    assert person.client.get("/api/v1/pieces").json()["pieces"][0]["name"] == "http"


def test_a_service_that_is_away_is_503_with_a_time_to_come_back(gateway: RunningGateway, person: Person) -> None:
    gateway.executor.away = True
    try:
        answer = person.client.get("/api/v1/runs")
    finally:
        gateway.executor.away = False
    refused(answer, 503, "DATABASE_AWAY")
    assert answer.headers["retry-after"] == "2"


def test_health_readiness_and_metrics(gateway: RunningGateway, person: Person) -> None:
    client = gateway.client()
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready"), ready.text
    assert ready.json()["services"] == {"auth": "serving", "flows": "serving", "executor": "serving"}
    person.client.get(f"/api/v1/runs/{new_text_id()}")
    metrics = client.get("/metrics").text
    assert 'millrace_http_requests_total{method="GET",route="/api/v1/runs/{run_id}",status="404"}' in metrics
    assert "millrace_rpc_total{" in metrics


@pytest.mark.parametrize("path", ["/api/v1/flows", "/api/v1/runs", "/api/v1/connections", "/healthz", "/nowhere"])
def test_every_answer_carries_the_security_headers(person: Person, path: str) -> None:
    headers = person.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_answers_hold_what_their_schemas_promise(gateway: RunningGateway, person: Person) -> None:
    flow_id = create_flow(person)
    person.client.post("/api/v1/connections", json={"name": "one", "secret": "x"})
    checks: list[tuple[str, type[Model]]] = [
        ("/api/v1/me", auth.Me),
        ("/.well-known/jwks.json", auth.Jwks),
        ("/api/v1/connections", connections.ConnectionPage),
        ("/api/v1/flows", flows.FlowPage),
        (f"/api/v1/flows/{flow_id}", flows.Flow),
        (f"/api/v1/flows/{flow_id}/draft", flows.DraftWithSamples),
        (f"/api/v1/flows/{flow_id}/versions", flows.VersionPage),
        ("/api/v1/runs", runs.RunPage),
        ("/api/v1/pieces", pieces.PieceList),
        ("/readyz", health.Ready),
    ]
    for path, model in checks:
        model.model_validate(json.loads(person.client.get(path).text))
