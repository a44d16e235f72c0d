"""A first look at a server: which certificate does it present? Nothing is sent to it but a TLS handshake."""

from __future__ import annotations

import asyncio
import ssl
import tempfile

from swarm.errors import NodeUnreachable, RemoteProtocolError
from swarm.identity import TlsIdentity
from swarm.terms import Address


class Prober:
    """Fetches servers' leaf certificates. Presents our own: without it their handshakes fail and their logs fill."""

    def __init__(self, tls: TlsIdentity) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # judged by the caller: identity is not in a chain of authorities
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        with tempfile.NamedTemporaryFile() as file:  # mode 0600; the ssl module reads keys from files only
            file.write(tls.certificate_pem + tls.private_key_pem)
            file.flush()
            context.load_cert_chain(file.name)
        self._context = context

    async def leaf(self, address: Address) -> tuple[bytes, str]:
        """-> (the certificate in DER, the gRPC target of the very IP address that presented it).

        Proves nothing yet about who listens there. Raises: NodeUnreachable, RemoteProtocolError.
        """
        try:
            _, writer = await asyncio.open_connection(
                address.host, address.port, ssl=self._context, happy_eyeballs_delay=0.25
            )
        except ssl.SSLError as error:
            raise RemoteProtocolError(
                f"{address} does not speak this swarm's TLS ({error.reason}); is it a node?"
            ) from None
        except (OSError, UnicodeError) as error:
            raise NodeUnreachable(f"{address} can't be reached: {error}") from None
        try:
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            host, port = writer.get_extra_info("peername")[:2]
        finally:
            writer.transport.abort()  # a closing handshake would wait for the other side
        if not certificate:
            raise RemoteProtocolError(f"{address} presented no certificate; is it a node?")
        return certificate, _grpc_target(host, port)


def _grpc_target(host: str, port: int) -> str:
    if ":" in host:
        return f"ipv6:%5B{host.replace('%', '%25')}%5D:{port}"
    return f"ipv4:{host}:{port}"
