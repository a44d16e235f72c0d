"""`swarm netcheck`: can others reach this machine, by which way, and what mends the rest."""

from __future__ import annotations

import asyncio

import click

from swarm.cli.findings import print_findings, worst
from swarm.cli.links import read_magnet
from swarm.cli.options import ADDRESS, Reach, json_option, magnet_argument, node_options, timeout_option
from swarm.errors import NodeUnreachable
from swarm.terms import Address

NETCHECK_SCHEMA = "swarm.netcheck/1"


@click.command(epilog="Example: swarm netcheck 'magnet:?xt=urn:btih:…'")
@magnet_argument(required=False)
@click.option("--listen", type=ADDRESS, help="The port to try. Default: any free one, where a node would listen.")
@node_options
@timeout_option(10.0, "How long to look for nodes.")
@json_option
def netcheck(magnet: str | None, listen: Address | None, reach: Reach, timeout_s: float, as_json: bool) -> None:
    """Find out what a node on this machine would meet: its addresses, the router, the DHT, and who reaches it.

    With MAGNET, nodes of that release are asked to dial back; with --peer, those that are named. Exits with 5 when
    those that were asked cannot reach a node here and none of them is a relay; with 0 when there was nobody to ask.
    """
    from swarm.client.netcheck import check_network
    from swarm.client.network import NetworkConfig

    link = None if magnet is None else read_magnet(magnet)
    network = NetworkConfig.named(reach.network, reach.bootstrap)
    if link is not None:
        network = network.asking(link.peers)
    release = None if link is None else link.infohash
    where = listen or Address("127.0.0.1" if reach.network == "loopback" else "0.0.0.0", 0)
    findings = asyncio.run(check_network(network, where, reach.peers, release, timeout_s))
    print_findings(NETCHECK_SCHEMA, findings, as_json)
    if worst(findings) == "bad":
        bad = next(finding for finding in findings if finding.state == "bad")
        raise NodeUnreachable(f"nobody can reach a node on this machine: {bad.says}; {bad.mend}")
