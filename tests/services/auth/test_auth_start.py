"""Starting auth: the signing key is made once, and needs its encryption key."""

import asyncio
from pathlib import Path

import pytest
from millrace.auth.v1 import account_pb2, account_pb2_grpc
from pydantic import SecretStr

from chassis.errors import StartRefused
from chassis.identity import ANONYMOUS
from chassis.lifecycle import Service, serving
from services.auth.service import build
from tests.services.auth.running import auth_settings


async def published_keys(home: Path, url: str) -> bytes:
    async with serving([Service(build, auth_settings(home, url))], listen=False) as process:
        stub: account_pb2_grpc.AccountServiceAsyncStub = account_pb2_grpc.AccountServiceStub(
            process.channel("auth", ANONYMOUS)
        )
        return (await stub.GetPublicKeys(account_pb2.GetPublicKeysRequest())).jwks


async def test_two_replicas_that_start_together_and_every_later_start_share_one_key(
    tmp_path: Path, database_url: str
) -> None:
    first, second = await asyncio.gather(published_keys(tmp_path, database_url), published_keys(tmp_path, database_url))
    assert first == second == await published_keys(tmp_path, database_url)


async def test_another_encryption_key_refuses_the_start_with_a_sentence(tmp_path: Path, database_url: str) -> None:
    await published_keys(tmp_path, database_url)
    settings = auth_settings(tmp_path, database_url)
    settings.encryption_keys = SecretStr("k2:MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=")
    with pytest.raises(StartRefused, match="'k1', which is not in the keyring"):
        async with serving([Service(build, settings)], listen=False):
            pass


async def test_outside_of_embedded_mode_no_key_refuses_the_start(tmp_path: Path, database_url: str) -> None:
    settings = auth_settings(tmp_path, database_url)
    settings.encryption_keys = SecretStr("")
    with pytest.raises(StartRefused, match="MILLRACE_ENCRYPTION_KEYS"):
        async with serving([Service(build, settings)], listen=False):
            pass
