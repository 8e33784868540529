"""Over TCP with certificates set, only processes that show one of the installation's authority are heard."""

import datetime
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.client import ServiceChannel, open_channel
from chassis.errors import StartRefused, Unavailable
from chassis.identity import Signer, service_caller
from chassis.server import RpcServer
from chassis.settings import ServiceSettings
from tests.chassis.conftest import KEY
from tests.chassis.echo import Echo, Stub, Words, add_to_server


def _issue(folder: Path) -> None:
    """An authority and one certificate for 127.0.0.1 signed by it, as three PEM files."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    authority = builder(authority_name, authority_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    own = builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "millrace")]), key.public_key()).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    (folder / "cert.pem").write_bytes(own.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _settings(home: Path, certificates: Path | None, authority: Path | None = None) -> ServiceSettings:
    if certificates is None:
        return ServiceSettings(home=home)
    return ServiceSettings(
        home=home,
        tls_cert=certificates / "cert.pem",
        tls_key=certificates / "key.pem",
        tls_ca=(authority or certificates) / "ca.pem",
    )


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    _issue(tmp_path / "ours")
    _issue(tmp_path / "theirs")
    server = RpcServer("echo", _settings(tmp_path, tmp_path / "ours"), KEY)
    add_to_server(Echo(), server)
    server.listen("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{server.ports[0]}"
    await server.stop(0)
    await server.close(0)


async def _ask(address: str, settings: ServiceSettings) -> str:
    async with ServiceChannel(
        open_channel(address, settings),
        service="echo",
        caller=service_caller("tester"),
        signer=Signer(KEY),
        call_timeout_s=5,
    ) as channel:
        return str((await Stub(channel).Say(Words(text="hello"))).text)


async def test_a_process_with_a_certificate_of_the_authority_is_heard(address: str, tmp_path: Path) -> None:
    assert await _ask(address, _settings(tmp_path, tmp_path / "ours")) == "hello"


async def test_a_process_with_a_foreign_certificate_is_not_heard(address: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await _ask(address, _settings(tmp_path, tmp_path / "theirs", authority=tmp_path / "ours"))


async def test_a_process_without_certificate_is_not_heard(address: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await _ask(address, _settings(tmp_path, None))
    authority = grpc.ssl_channel_credentials((tmp_path / "ours" / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(address, authority) as bare:
        with pytest.raises(grpc.aio.AioRpcError):
            await Stub(bare).Say(Words(text="hello"), timeout=5)


async def test_a_server_of_another_authority_is_not_trusted(address: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await _ask(address, _settings(tmp_path, tmp_path / "ours", authority=tmp_path / "theirs"))


def test_tls_that_is_half_set_is_refused(tmp_path: Path) -> None:
    _issue(tmp_path / "ours")
    settings = ServiceSettings(home=tmp_path, tls_cert=tmp_path / "ours" / "cert.pem")
    with pytest.raises(StartRefused, match="MILLRACE_TLS_KEY is missing"):
        RpcServer("echo", settings, KEY).listen("127.0.0.1:0")
