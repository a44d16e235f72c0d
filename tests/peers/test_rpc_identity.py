"""Both ends prove who they are, on every call; whoever can't gets nothing."""

import asyncio
import contextlib
import datetime
import ssl
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from node.server import RelayConfig, RelayHandler
from swarm.errors import NodeUnreachable, RemoteProtocolError, Unauthenticated
from swarm.identity import OPEN_AUTHORITY, Authority, NodeKey, TlsIdentity, issue, tls_host_name
from swarm.identity.certificate import _derive_p256
from swarm.messages import Failure, Open, Opened, Step
from swarm.rpc import RpcConfig, paths
from swarm.rpc.config import channel_options
from swarm.terms import Address, NodeId

WAIT_S = 5.0


def impostor_identity(victim: NodeKey) -> TlsIdentity:
    """What anybody can make: a certificate under the open authority, named after the victim, without its signature."""
    authority_key = _derive_p256(OPEN_AUTHORITY.secret, b"swarm authority p-256 v1")
    authority = x509.load_pem_x509_certificate(issue(victim).authority_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, victim.node_id)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2040, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(tls_host_name(victim.node_id))]), critical=False)
        .sign(authority_key, SHA256())
    )
    return TlsIdentity(
        victim.node_id,
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        issue(victim).authority_pem,
    )


@contextlib.asynccontextmanager
async def raw_channel(address: Address, server: NodeKey, client: TlsIdentity | None) -> AsyncIterator[grpc.aio.Channel]:
    """A channel as a stranger would open it: it pins the server, and presents what it likes."""
    credentials = grpc.ssl_channel_credentials(
        issue(server).certificate_pem,
        client.private_key_pem if client else None,
        client.certificate_pem if client else None,
    )
    options = channel_options(RpcConfig(), tls_host_name(server.node_id))
    async with grpc.aio.secure_channel(str(address), credentials, options=options) as channel:
        yield channel


async def code_of(call: Any) -> grpc.StatusCode:
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(grpc.aio.AioRpcError):
            if hasattr(call, "__aiter__"):
                async for _ in call:
                    pass
            else:
                await call
        code: grpc.StatusCode = await call.code()
        return code


async def every_method(channel: grpc.aio.Channel) -> dict[str, grpc.StatusCode]:
    calls = {
        path: channel.unary_unary(path)(b"", timeout=WAIT_S)
        for path in (paths.DESCRIBE, paths.EXCHANGE, paths.DIAL_BACK, paths.HEALTH_CHECK)
    }
    calls[paths.RESULTS] = channel.unary_stream(paths.RESULTS)(b"", timeout=WAIT_S)
    calls[paths.RESERVE] = channel.unary_stream(paths.RESERVE)(b"", timeout=WAIT_S)
    for path in (paths.RUN, paths.APPLY, paths.CONNECT, paths.ACCEPT):
        calls[path] = channel.stream_stream(path)(timeout=WAIT_S)
    return {path: await code_of(call) for path, call in calls.items()}


async def refuse(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
    raise AssertionError("a stranger got in")
    yield


class NoExperts:
    def apply(self, *call: object) -> AsyncIterator[Opened]:
        raise AssertionError("a stranger got in")


async def test_every_method_refuses_a_member_without_a_node_id(world: Any) -> None:
    """TLS lets it in, since the open authority's key is public: the check on each call is what keeps it out."""
    key = NodeKey.generate()
    node = world.node(key)
    handlers = {"relay": RelayHandler(RelayConfig()), "experts": NoExperts()}
    _, address = await world.serve(key=key, node=node, stage=world.stage(running=refuse), **handlers)
    async with raw_channel(address, key, impostor_identity(NodeKey.generate())) as channel:
        codes = await every_method(channel)
    assert set(codes) == {value for name, value in vars(paths).items() if name.isupper() and value.startswith("/")}
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}
    assert node.callers == []


async def test_no_certificate_no_call(world: Any) -> None:
    key = NodeKey.generate()
    node = world.node(key)
    _, address = await world.serve(key=key, node=node)
    async with raw_channel(address, key, None) as channel:
        code = await code_of(channel.unary_unary(paths.DESCRIBE)(b"", timeout=WAIT_S))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert node.callers == []


async def test_self_signed_certificates_do_not_pass_tls(world: Any) -> None:
    key, stranger = NodeKey.generate(), issue(NodeKey.generate(), Authority(b"an authority of its own"))
    node = world.node(key)
    _, address = await world.serve(key=key, node=node)
    async with raw_channel(address, key, stranger) as channel:
        code = await code_of(channel.unary_unary(paths.DESCRIBE)(b"", timeout=WAIT_S))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert node.callers == []


async def test_plaintext_is_not_served(world: Any) -> None:
    _, address = await world.serve(node=world.node())
    async with grpc.aio.insecure_channel(str(address), options=[("grpc.enable_http_proxy", 0)]) as channel:
        code = await code_of(channel.unary_unary(paths.DESCRIBE)(b"", timeout=WAIT_S))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_node_at_anothers_address_is_refused(world: Any) -> None:
    expected, actual = NodeKey.generate(), NodeKey.generate()
    node = world.node(actual)
    _, address = await world.serve(key=actual, node=node)
    dialer = world.dialer()
    with pytest.raises(Unauthenticated, match="changed hands"):
        await dialer.connect(address, expected.node_id)
    connection = await dialer.connect(address, actual.node_id)
    assert connection.node_id == actual.node_id
    assert (await dialer.connect(address)) is connection


async def serve_raw(tls: TlsIdentity, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, Address]:
    """A server with whatever identity, and no methods."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    credentials = grpc.ssl_server_credentials([(tls.private_key_pem, tls.certificate_pem)], tls.authority_pem, True)
    port = server.add_secure_port(address, credentials)
    await server.start()
    return server, Address("127.0.0.1", port)


async def test_an_impostor_with_the_victims_name_is_refused(world: Any) -> None:
    victim = NodeKey.generate()
    server, address = await serve_raw(impostor_identity(victim))
    try:
        for expected in (victim.node_id, None):
            with pytest.raises(Unauthenticated):
                await world.dialer().connect(address, expected)
    finally:
        await server.stop(0)


async def test_an_impostor_that_replays_the_victims_certificate_is_refused(world: Any) -> None:
    """It can show the certificate in a handshake that nobody finishes, but has no key for it."""
    victim = NodeKey.generate()
    stolen = issue(victim)
    own = issue(NodeKey.generate())
    with pytest.raises(ssl.SSLError):
        # OpenSSL itself refuses the pair; BoringSSL in gRPC does as well, so no server can even be made of it.
        context_of(stolen.certificate_pem, own.private_key_pem)


def context_of(certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def test_an_impostor_that_takes_over_the_port_gets_no_call(world: Any) -> None:
    """The connection pins the leaf that was checked, so that a reconnect to the same address proves it anew."""
    victim = NodeKey.generate()
    server, address = await world.serve(key=victim, node=world.node(victim))
    dialer = world.dialer()
    connection = await dialer.connect(address, victim.node_id)
    await connection.describe(WAIT_S)
    await server.stop(0)
    other, _ = await serve_raw(impostor_identity(victim), str(address))
    try:
        with pytest.raises(NodeUnreachable):
            await connection.describe(WAIT_S)
        with pytest.raises(Unauthenticated):
            await dialer.connect(address, victim.node_id)
    finally:
        await other.stop(0)


async def test_private_swarms_keep_to_themselves(world: Any) -> None:
    invite = Authority(b"the secret of an invite")
    _, private = await world.serve(authority=invite)
    _, public = await world.serve()
    with pytest.raises(Unauthenticated, match="another swarm"):
        await world.dialer().connect(private)
    with pytest.raises(Unauthenticated, match="another swarm"):
        await world.dialer(authority=invite).connect(public)
    connection = await world.dialer(authority=invite).connect(private)
    assert await connection.check_health(WAIT_S) is False


async def listen(answer: bytes | None) -> tuple[asyncio.Server, Address]:
    """Something that is no node: it answers with bytes, hangs up (b""), or says nothing (None)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await reader.read()
        elif answer:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, Address("127.0.0.1", server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", RemoteProtocolError),
        (b"\x15\x03\x03\x00\x02\x02\x28", RemoteProtocolError),
        (b"", NodeUnreachable),
        (None, NodeUnreachable),
    ],
)
async def test_what_is_no_node_is_refused_in_time(world: Any, answer: bytes | None, kind: type[Exception]) -> None:
    server, address = await listen(answer)
    async with server:
        with pytest.raises(kind):
            await world.dialer(config=RpcConfig(connect_timeout_s=0.5)).connect(address)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".example", "a..b"])
async def test_names_that_lead_nowhere(world: Any, host: str) -> None:
    with pytest.raises(NodeUnreachable):
        await world.dialer().connect(Address(host, 80))


async def test_ipv6_and_names_are_dialled(world: Any) -> None:
    try:
        _, v6 = await world.serve(listen=Address("::1", 0))
    except Exception:
        pytest.skip("this machine has no IPv6 loopback")
    assert (await world.connect(v6)).alive
    _, v4 = await world.serve()
    assert (await world.connect(Address("localhost", v4.port))).alive


async def test_an_http_proxy_in_the_environment_sees_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    _, address = await world.serve()
    assert await (await world.connect(address)).check_health(WAIT_S) is False
