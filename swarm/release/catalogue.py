"""Mistral's own releases by torrent: what they are called, their infohashes, and the trackers that were posted.

Posted links reach people through sites that break `%2F` and shorten hosts, so trackers are listed here as they were
before that. Nothing is listed that has no source. Does NOT say that anybody still seeds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.terms import Infohash


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """name: of the torrent, and what `dn=` says. model: for people. licence: as the publisher states it elsewhere.

    is_runnable: False for architectures that this version refuses; they can be seeded all the same.
    """

    name: str
    infohash: Infohash
    trackers: tuple[str, ...]
    model: str
    licence: str
    is_runnable: bool = True


_OPENTRACKR_UDP = "udp://tracker.opentrackr.org:1337/announce"

CATALOGUE = (
    # Posted on 2023-09-27; one folder of RELEASE, consolidated.00.pth, params.json, tokenizer.model (13.4 GB).
    # Licence: https://mistral.ai/news/announcing-mistral-7b
    CatalogueEntry(
        "mistral-7B-v0.1",
        Infohash("208b101a0f51514ecf285885a8b0f6fb1a1e4d7d"),
        (_OPENTRACKR_UDP,),
        "Mistral 7B v0.1",
        "apache-2.0",
    ),
    # https://x.com/MistralAI/status/1733150512395038967, and the model card of mistralai/Mixtral-8x7B-v0.1.
    # Licence: https://mistral.ai/news/mixtral-of-experts
    CatalogueEntry(
        "mixtral-8x7b-32kseqlen",
        Infohash("5546272da9065eddeb6fcd7ffddeef5b75be79a7"),
        ("udp://opentracker.i2p.rocks:6969/announce", "http://tracker.openbittorrent.com:80/announce"),
        "Mixtral 8x7B v0.1",
        "apache-2.0",
    ),
    # https://x.com/MistralAI/status/1777869263778291896, and mistral-inference's README.
    # Licence: https://mistral.ai/news/mixtral-8x22b
    CatalogueEntry(
        "mixtral-8x22b",
        Infohash("9238b09245d0d8cd915be09927769d5f7584c1c9"),
        ("udp://open.demonii.com:1337/announce", "http://tracker.opentrackr.org:1337/announce"),
        "Mixtral 8x22B v0.1",
        "apache-2.0",
    ),
    # https://x.com/MistralAI/status/1833758285167722836. Licence: https://mistral.ai/news/pixtral-12b
    CatalogueEntry(
        "pixtral-12b-240910",
        Infohash("7278e625de2b1da598b23954c13933047126238a"),
        (_OPENTRACKR_UDP, "udp://open.demonii.com:1337/announce", "http://tracker.ipv6tracker.org:80/announce"),
        "Pixtral 12B 2409",
        "apache-2.0",
        is_runnable=False,  # a vision encoder
    ),
    # https://x.com/MistralAI/status/1884967826215059681; its second tracker is cut off wherever the link was found.
    # Licence: https://mistral.ai/news/mistral-small-3
    CatalogueEntry(
        "Mistral-Small-3-Instruct",
        Infohash("11f2d1ca613ccf5a5c60104db9f3babdfa2e6003"),
        (_OPENTRACKR_UDP,),
        "Mistral Small 3 Instruct (24B)",
        "apache-2.0",
    ),
)


def find_entry(name: str) -> CatalogueEntry | None:
    """By name, in any case, or by infohash."""
    wanted = name.strip().lower()
    return next((entry for entry in CATALOGUE if wanted in (entry.name.lower(), entry.infohash)), None)
