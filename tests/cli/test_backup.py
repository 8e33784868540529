"""A whole installation in one file, and back."""

import stat
from pathlib import Path

import httpx
import pytest

from tests.backings.platform import Platform, made_platform
from tests.cli.test_commands import GREET


@pytest.mark.slow
def test_what_is_backed_up_is_there_after_a_restore(tmp_path: Path) -> None:
    file = tmp_path / "all.backup"
    with made_platform() as one, made_platform() as two:
        one.start()
        one.millrace("sign-up", "ada@example.org", stdin="a long password")
        one.millrace("connection", "create", "board", stdin="s3cret")
        flow_id = one.millrace_json("flow", "import", "-", "--publish", stdin=GREET)["flow"]["id"]
        run_id = httpx.post(f"{one.url}/api/v1/webhooks/{flow_id}/sync", json={"name": "Ada"}, timeout=60).headers[
            "x-millrace-run-id"
        ]
        one.millrace("backup", str(file))  # while it runs
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        one.stop()

        two.millrace("restore", str(file))
        two.start()
        two.millrace("sign-in", "ada@example.org", stdin="a long password")
        assert [found["name"] for found in two.millrace_json("connection", "list")] == ["board"]
        assert 'output: "ADA"' in two.millrace("run", "show", run_id)
        again = httpx.post(f"{two.url}/api/v1/webhooks/{flow_id}/sync", json={"name": "Eve"}, timeout=60)
        assert again.json() == "hello EVE"
        said = two.millrace("restore", str(file), exit_code=78)
        assert "is not empty" in said


def test_a_stopped_installation_is_backed_up_as_well() -> None:
    with made_platform() as one, made_platform() as two:
        file = str(one.folder / "all.backup")
        one.millrace("migrate")
        one.millrace("backup", file)
        two.millrace("restore", file)
        two.millrace("migrate")


def test_what_is_no_backup_is_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    one = Platform(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8 no backup")
    assert "is no backup of Millrace" in one.millrace("restore", "photo.jpg", exit_code=78)
    assert not one.home.exists()
    assert "There is no installation" in one.millrace("backup", "all.backup", exit_code=78)
