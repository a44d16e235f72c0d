"""The events of `swarm node start` in words."""

from __future__ import annotations

from typing import Any

from swarm.cli.console import format_duration, format_percent, format_piece_size, format_rate, format_size, note
from swarm.cli.status import hosting_words
from swarm.terms import Address, counted, short_id


def tell_placement(fields: dict[str, Any]) -> None:
    if "layer_time_s" not in fields:
        note("; ".join(fields["reasons"]))
        return
    time_ms, tokens_per_s = 1e3 * fields["layer_time_s"], fields["throughput"]
    note(f"layers {', '.join(fields['spans'])}: {'; '.join(fields['reasons'])}")
    note(f"a token takes {time_ms:.3g} ms through a layer here, so {tokens_per_s:.3g} tokens/s through all of them")


def progress_words(fields: dict[str, Any]) -> str:
    """Rates, peers, layers and, where it can be known, the time that is left."""
    down, up = format_rate(fields["download_rate"]), format_rate(fields["upload_rate"])
    words = [f"{down} down", f"{up} up", counted(fields["n_peers"], "peer")]
    if fields["layers_total"]:
        words.append(f"{fields['layers_loaded']}/{fields['layers_total']} layers ready")
    if fields["experts_total"]:
        words.append(f"{fields['experts_loaded']}/{fields['experts_total']} experts ready")
    if fields["left_s"]:
        words.append(f"{format_duration(fields['left_s'])} left")
    return ", ".join(words)


def _parts(fields: dict[str, Any]) -> str:
    spans = [f"layers {span}" for span in fields["spans"]]
    return hosting_words(spans, fields["trunks"], fields["experts"])


def reach_words(fields: dict[str, Any]) -> str:
    """Where others find this node, and what mends it when they do not."""
    if fields["reachability"] == "reachable":
        return f"others reach this node at {fields['address']}"
    mend = "forward the port on the router, or turn on UPnP there; `swarm netcheck` says more"
    if fields["relay"]:
        relay, address = short_id(fields["relay"]), Address.parse(fields["address"]).relay
        return f"nobody can dial this node ({fields['problem']}): serving through node {relay} at {address}; {mend}"
    return f"nobody can dial this node ({fields['problem']}), and no relay was found yet; {mend}"


def tell(event: str, fields: dict[str, Any]) -> None:
    """One event in words."""
    match event:
        case "started":
            note(f"swarm {fields['version']}, node {fields['node_id']}, BitTorrent port {fields['torrent_port']}")
        case "metadata":
            size, piece = format_size(fields["total_bytes"]), format_piece_size(fields["piece_size"])
            note(f"release {fields['name']}, {size} in pieces of {piece}")
        case "provenance":
            note(f"{fields['words']}; licence: {fields['licence'] or 'not stated'}")
        case "listening" if Address.parse(fields["listen"]).is_loopback:
            note(f"listening on {fields['listen']} (this machine only; --listen 0.0.0.0:PORT lets others in)")
        case "listening":
            note(f"listening on {fields['listen']}, dialled as {fields['address']}")
        case "reach":
            note(reach_words(fields))
        case "placement":
            tell_placement(fields)
        case "moving":
            note(f"moving to layers {', '.join(fields['spans'])}: {'; '.join(fields['reasons'])}")
        case "moved":
            note(f"serving layers {', '.join(fields['spans'])}")
        case "layout":
            note(f"hosting {_parts(fields)} of {fields['n_layers']} layers in {fields['profile']}")
            note(f"kernels: {fields['kernels']}")
        case "serving" if not fields["is_all"]:
            note(f"serving layers {', '.join(fields['loaded_spans'])} at {fields['address']} while the rest comes")
        case "ready":
            needed, fetched, whole = fields["needed_bytes"], fields["fetched_bytes"], fields["release_bytes"]
            share = format_percent(fetched, whole)
            came = f"fetched {format_size(fetched)}, {share} of the release" if fetched else "all of it was here"
            came += f"; {format_size(fields['found_bytes'])} were here" if fetched and fields["found_bytes"] else ""
            note(f"needed {format_size(needed)}, {came}")
            note(f"ready: serving {_parts(fields)} at {fields['address']}")
        case "sharing" if fields["uploaded_bytes"]:
            given, ratio = format_size(fields["uploaded_bytes"]), fields["share_ratio"]
            words = f", share ratio {ratio:.2f}" if ratio is not None else ""
            note(f"gave {given} to {counted(fields['n_peers'], 'peer')}, {format_rate(fields['upload_rate'])}{words}")
        case "draining" if fields["sessions"]:
            note(f"draining {counted(fields['sessions'], 'session')}, for {fields['timeout_s']:g} s at most")
        case "handing_over" if fields["sessions"]:
            note(f"{counted(fields['sessions'], 'session')} left: told to go on at other nodes")
        case "stopped":
            note("stopped; the same command goes on with what is here")
