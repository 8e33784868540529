"""Errors cross processes and become problem documents without losing what they say."""

import pytest

from chassis import errors
from chassis.errors import Conflict, Fault, Internal, Invalid, Limited, MillraceError, NotFound

FAMILY = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, MillraceError)][1:]


@pytest.mark.parametrize("cls", FAMILY)
def test_each_class_is_restored_as_itself(cls: type[MillraceError]) -> None:
    error = cls("WHY", "What happened.", faults=[Fault("s", "f", "m", "r")], retry_after_s=1.5, n=1, more={"a": [None]})
    restored = errors.from_metadata(errors.to_metadata(error))
    assert restored is not None
    assert type(restored) is cls
    assert vars(restored) == vars(error)


def test_a_domains_own_class_travels_as_its_family_member() -> None:
    class DraftStale(Conflict):
        """For a test."""

    restored = errors.from_metadata(errors.to_metadata(DraftStale("DRAFT_STALE", "Reload.", current_revision=3)))
    assert type(restored) is Conflict
    assert restored.details == {"current_revision": 3}


def test_statuses_are_told_apart() -> None:
    kinds = [cls for cls in FAMILY if cls is not Internal]
    assert len({cls.status for cls in kinds}) == len({cls.http for cls in kinds}) == len(kinds)


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff", b"[1]"])
def test_what_is_no_error_restores_to_none(junk: bytes) -> None:
    assert errors.from_metadata(junk) is None


def test_the_problem_document_names_everything_once() -> None:
    fault = Fault(field="name", message="is required")
    error = Invalid("BAD", "Two things are wrong.", faults=[fault], limit=3, status=1)
    assert errors.to_problem(error, "/api/v1/flows") == {
        "type": "urn:millrace:error:bad",
        "title": "Invalid request",
        "status": 400,
        "detail": "Two things are wrong.",
        "instance": "/api/v1/flows",
        "reason": "BAD",
        "faults": [{"step_id": "", "field": "name", "message": "is required", "reason": ""}],
        "limit": 3,
    }
    assert errors.to_problem(Limited("SLOW", "Wait.", retry_after_s=2))["retry_after_s"] == 2
    assert "faults" not in errors.to_problem(NotFound("X", "y"))
