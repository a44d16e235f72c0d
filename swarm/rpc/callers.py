"""Who calls: the node id that a call's client certificate proves."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

import grpc

from swarm.errors import StageFull, Unauthenticated
from swarm.identity import node_id_of_certificate
from swarm.terms import Address, NodeId, machine_of

_MAX_REMEMBERED = 1024


class Callers:
    """Reads the caller of every call from its TLS session; remembers certificates that it has checked before.

    max_calls: at once of one caller, and of one host, whatever ids its callers made up: ids are free. Calls from this
    very machine count by caller alone: a relay's are among them, whose callers are elsewhere.
    """

    def __init__(self, authority_pem: bytes, max_calls: int) -> None:
        self._authority_pem = authority_pem
        self._max_calls = max_calls
        self._n_calls: Counter[str] = Counter()  # by node id, and by host
        self._remembered: dict[bytes, NodeId] = {}

    @contextlib.contextmanager
    def one_more(self, context: grpc.aio.ServicerContext) -> Iterator[NodeId]:
        """Who calls, for as long as the call. Raises: Unauthenticated; StageFull when it has max_calls already."""
        caller, host = self.node_id(context), outside_host(context.peer())
        sources = {str(caller), host} if host else {str(caller)}
        if any(self._n_calls[source] >= self._max_calls for source in sources):
            raise StageFull(f"{self._max_calls} calls of yours are open here, and others have theirs; end some of them")
        self._n_calls.update(sources)
        try:
            yield caller
        finally:
            for source in sources:
                self._n_calls[source] -= 1
                if not self._n_calls[source]:
                    del self._n_calls[source]

    def node_id(self, context: grpc.aio.ServicerContext) -> NodeId:
        """Raises: Unauthenticated. TLS has proved already that the caller holds the certificate's private key."""
        certificates = context.auth_context().get("x509_pem_cert", ())
        if len(certificates) != 1:
            raise Unauthenticated("this call came with no client certificate; calls need one that proves a node id")
        known = self._remembered.get(certificates[0])
        if known is not None:
            return known
        node_id = node_id_of_certificate(certificates[0], self._authority_pem)
        while len(self._remembered) >= _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[certificates[0]] = node_id
        return node_id


def outside_host(peer: str) -> str:
    """As host_of, for who counts callers by host: '' from this very machine, where a relay brings calls of many. All of
    an IPv6 /64 is one: a single machine may call from any address of its own.
    """
    host = host_of(peer)
    return "" if _is_here(host) else machine_of(host)


def host_of(peer: str) -> str:
    """ "ipv4:192.0.2.1:4242" or "ipv6:%5B2001:db8::1%5D:4242", as gRPC names who calls -> the host."""
    _, _, where = peer.partition(":")
    return unquote(where).rpartition(":")[0].strip("[]").removeprefix("::ffff:")


def _is_here(host: str) -> bool:
    return not host or Address(host, 0).is_loopback
