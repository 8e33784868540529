"""The OpenAPI document: worth reading, true, and no request made from it is ever our fault."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from millrace.options.v1 import options_pb2
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import rest_app
from gateway.openapi import document_of
from gateway.parts import Parts
from gateway.stubs import Stubs
from gateway.tokens import permissions_of_member
from tests.gateway.running_gateway import Person, RunningGateway

PUBLIC = {
    ("post", "/api/v1/auth/sign-up"),
    ("post", "/api/v1/auth/sign-in"),
    ("post", "/api/v1/auth/refresh"),
    ("post", "/api/v1/auth/sign-out"),
    ("get", "/.well-known/jwks.json"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}
HOOKS = "/api/v1/webhooks/"
Operation = tuple[str, str, dict[str, Any]]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="session")
def document(gateway: RunningGateway) -> dict[str, Any]:
    answer = gateway.client().get("/api/v1/openapi.json")
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, dict):
                yield method, path, operation


def test_every_operation_has_a_tag_a_summary_and_a_description(document: dict[str, Any]) -> None:
    known = {tag["name"] for tag in document["tags"]}
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["tags"], where
        assert set(operation["tags"]) <= known, where
        assert operation["summary"], where
        assert len(operation["description"]) > 20, where
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_every_body_and_every_answer_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        bodies = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
        for name, body in bodies:
            for kind, content in body.get("content", {}).items():
                assert "example" in content or content.get("examples"), f"{method} {path} {name} {kind}"


def test_every_operation_documents_its_refusals_as_problems(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        where, responses = f"{method} {path}", operation["responses"]
        if operation["tags"] == ["health"]:
            continue
        refusals = {status: body for status, body in responses.items() if status >= "400"}
        assert refusals, where
        assert all("application/problem+json" in body["content"] for body in refusals.values()), where
        if (method, path) not in PUBLIC and not path.startswith(HOOKS):
            assert {"401", "404"} <= set(refusals), where
        if "requestBody" in operation and not path.startswith(HOOKS):
            assert {"400", "413", "415", "422"} <= set(refusals), where
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_a_simulation_may_meet_faults_of_the_draft_and_an_export_is_an_object(document: dict[str, Any]) -> None:
    assert "422" in document["paths"]["/api/v1/webhooks/{flow_id}/simulate"]["post"]["responses"]
    assert "422" not in document["paths"]["/api/v1/webhooks/{flow_id}/sync"]["post"]["responses"]
    exported = document["paths"]["/api/v1/flows/{flow_id}/export"]["get"]["responses"]["200"]["content"]
    assert [exported[kind]["schema"]["type"] for kind in exported] == ["object", "object"]


def test_every_route_that_is_not_listed_as_public_asks_who_calls(
    gateway: RunningGateway, document: dict[str, Any]
) -> None:
    client, seen = gateway.client(), set()
    for method, path, operation in operations(document):
        if path.startswith(HOOKS):
            continue
        seen.add((method, path))
        public = (method, path) in PUBLIC
        assert bool(operation.get("security")) != public, path
        if not public:
            answer = client.request(method, path.replace("{", "").replace("}", ""))
            assert (answer.status_code, answer.json()["reason"]) == (401, "SIGN_IN_FIRST"), path
    assert seen >= PUBLIC


def test_a_member_is_given_no_permission_of_services() -> None:
    given = permissions_of_member()
    names = {options_pb2.Permission.Name(number) for number in given}  # type: ignore[arg-type]  # numbers of the enum
    assert not names & {"PERMISSION_UNSPECIFIED", "PERMISSION_PUBLIC", "PERMISSION_INTERNAL", "PERMISSION_SELF"}
    assert len(given) == len(options_pb2.Permission.values()) - 4
    assert set(Stubs.__annotations__) == {
        "accounts", "connections", "flows", "drafts", "versions", "runs", "pieces"
    }  # fmt: skip  # a new one is a new surface: think of its routes' permissions


@pytest.fixture(scope="session")
def fuzzer(gateway: RunningGateway) -> Person:
    return gateway.person("Fuzz")


# The document needs nothing that runs; what it describes is then called on the real port.
schema = schemathesis.openapi.from_dict(document_of(rest_app(cast(Parts, None), {}), {}))


@schema.parametrize()
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_is_ever_our_fault_and_every_answer_is_documented(
    case: schemathesis.Case[Any], fuzzer: Person, gateway: RunningGateway
) -> None:
    headers = {"authorization": f"Bearer {fuzzer.access_token}"}
    if case.headers and "X-Millrace-Project" in case.headers and case.meta is not None:
        case.headers.pop("X-Millrace-Project")  # a made-up project is 404 before anything is tried
    answer = case.call(base_url=gateway.url, headers=headers)
    case.validate_response(answer, checks=CHECKS)
