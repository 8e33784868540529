"""What follows from what an operator sets."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from chassis.errors import StartRefused
from chassis.settings import ServiceSettings, load_or_create_secret, prepare_socket_folder, socket_path


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_ADDRESSES__AUTH", "auth:7000")
    monkeypatch.setenv("MILLRACE_METRICS_PORT", "")
    settings = ServiceSettings()
    assert settings.home == tmp_path
    assert settings.address_of("auth") == "auth:7000"
    assert settings.address_of("flows") == f"unix:{tmp_path}/run/flows.sock"
    assert settings.metrics_port == 0
    assert settings.embedded


def test_in_a_cluster_a_missing_address_is_named() -> None:
    settings = ServiceSettings(database_url="postgresql://x")
    with pytest.raises(StartRefused, match="MILLRACE_ADDRESSES__FLOWS"):
        settings.address_of("flows")


def test_the_embedded_key_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    settings = ServiceSettings(home=tmp_path)
    key = settings.resolved_internal_key()
    assert len(key) == 32
    assert settings.resolved_internal_key() == key
    path = tmp_path / "secrets" / "internal.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("key", ["", "short", "a" * 64])
def test_a_missing_or_weak_key_is_refused_in_a_cluster(key: str) -> None:
    with pytest.raises(StartRefused, match="MILLRACE_INTERNAL_KEY"):
        ServiceSettings(database_url="postgresql://x", internal_key=SecretStr(key)).resolved_internal_key()


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: load_or_create_secret(tmp_path / "key", 32), range(32)))
    assert len(secrets) == 1
    assert os.listdir(tmp_path) == ["key"]


def test_a_damaged_secret_is_told_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not hex")
    with pytest.raises(StartRefused, match="damaged"):
        load_or_create_secret(tmp_path / "key", 32)


def test_a_secret_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create_secret(path, 32)
    path.chmod(0o644)
    load_or_create_secret(path, 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_home_too_deep_for_sockets_gets_a_short_private_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    path = socket_path(deep, "flows")
    assert len(os.fsencode(path)) < 108
    assert path != socket_path(tmp_path / ("e" * 100), "flows")
    prepare_socket_folder(path)
    try:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        path.parent.rmdir()


def test_a_short_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path = socket_path(tmp_path / ("f" * 100), "flows")
    path.parent.symlink_to(tmp_path)
    try:
        with pytest.raises(StartRefused, match="belongs to another user"):
            prepare_socket_folder(path)
    finally:
        path.parent.unlink()
