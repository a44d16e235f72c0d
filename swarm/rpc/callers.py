"""Who calls: the node id that a call's client certificate proves."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import grpc

from swarm.errors import StageFull, Unauthenticated
from swarm.identity import node_id_of_certificate
from swarm.terms import NodeId

_MAX_REMEMBERED = 1024


class Callers:
    """Reads the caller of every call from its TLS session; remembers certificates that it has checked before.

    max_calls: of one caller at once.
    """

    def __init__(self, authority_pem: bytes, max_calls: int) -> None:
        self._authority_pem = authority_pem
        self._max_calls = max_calls
        self._n_calls: Counter[NodeId] = Counter()
        self._remembered: dict[bytes, NodeId] = {}

    @contextlib.contextmanager
    def one_more(self, context: grpc.aio.ServicerContext) -> Iterator[NodeId]:
        """Who calls, for as long as the call. Raises: Unauthenticated; StageFull when it has max_calls already."""
        caller = self.node_id(context)
        if self._n_calls[caller] >= self._max_calls:
            raise StageFull(f"{self._max_calls} calls of yours are open here, and others have theirs; end some of them")
        self._n_calls[caller] += 1
        try:
            yield caller
        finally:
            self._n_calls[caller] -= 1
            if not self._n_calls[caller]:
                del self._n_calls[caller]

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
