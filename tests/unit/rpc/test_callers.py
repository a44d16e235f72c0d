"""How many calls one participant may have open, whatever it calls itself."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from swarm.errors import StageFull
from swarm.identity import NodeKey, issue
from swarm.rpc.callers import Callers, host_of, outside_host

IDENTITIES = [issue(NodeKey.generate()) for _ in range(3)]


class Context:
    """Of a call: what gRPC says of its other end."""

    def __init__(self, i: int, peer: str) -> None:
        self._certificate = IDENTITIES[i].certificate_pem
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}


def open_calls(callers: Callers, stack: ExitStack, contexts: list[Any]) -> list[str]:
    return [stack.enter_context(callers.one_more(context)) for context in contexts]


@pytest.mark.parametrize(
    "here", ["ipv4:192.0.2.1:%d", "ipv6:%%5B2001:db8::1%%5D:%d", "ipv6:%%5B::ffff:192.0.2.1%%5D:%d"]
)
def test_new_ids_give_a_host_no_more_calls(here: str) -> None:
    callers = Callers(IDENTITIES[0].authority_pem, max_calls=2)
    with ExitStack() as stack:
        ids = open_calls(callers, stack, [Context(0, here % 1000), Context(1, here % 1001)])
        assert ids == [identity.node_id for identity in IDENTITIES[:2]]
        with pytest.raises(StageFull):
            open_calls(callers, stack, [Context(2, here % 1002)])
        open_calls(callers, stack, [Context(2, "ipv4:192.0.2.2:1000")])
    with ExitStack() as stack:
        open_calls(callers, stack, [Context(2, here % 1003)] * 2)


def test_an_ipv6_network_counts_as_one_host() -> None:
    """A machine may call from each of its addresses."""
    callers = Callers(IDENTITIES[0].authority_pem, max_calls=2)
    with ExitStack() as stack:
        open_calls(callers, stack, [Context(i, f"ipv6:%5B2001:db8::{i}%5D:1000") for i in range(2)])
        with pytest.raises(StageFull):
            open_calls(callers, stack, [Context(2, "ipv6:%5B2001:db8::2%5D:1000")])
        open_calls(callers, stack, [Context(2, "ipv6:%5B2001:db8:0:1::2%5D:1000")])
    assert outside_host("ipv6:%5Bfe80::1%25eth0%5D:42") == outside_host("ipv6:%5Bfe80::2%25eth0%5D:42")


def test_calls_from_this_machine_count_by_caller_alone() -> None:
    callers = Callers(IDENTITIES[0].authority_pem, max_calls=1)
    with ExitStack() as stack:
        open_calls(callers, stack, [Context(i, f"ipv4:127.0.0.1:{1000 + i}") for i in range(3)])
        with pytest.raises(StageFull):
            open_calls(callers, stack, [Context(0, "ipv4:127.0.0.1:1")])


def test_a_host_is_read_from_what_grpc_calls_its_peer() -> None:
    peers = ["ipv4:192.0.2.1:42", "ipv6:%5B2001:db8::1%5D:42", "ipv6:%5B::ffff:192.0.2.1%5D:42"]
    assert [host_of(peer) for peer in peers] == ["192.0.2.1", "2001:db8::1", "192.0.2.1"]
