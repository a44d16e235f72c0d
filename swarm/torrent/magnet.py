"""Magnet links: text to a checked value and back. Pure; contacts nobody and does not know libtorrent."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from swarm.errors import BadArgument, MagnetError
from swarm.terms import Address, Infohash

MAX_MAGNET_CHARS = 65_536
"""Longer texts are refused: a link with a hundred trackers has about 10,000 characters."""

MAX_LINKS = 256
"""The most trackers, web seeds or peers that one link may name; the rest is dropped with a warning."""

_TRACKER_SCHEMES = ("udp", "http", "https", "ws", "wss")
_WEB_SEED_SCHEMES = ("http", "https")
_NAME_CHARS = 255


@dataclass(frozen=True, slots=True)
class Magnet:
    """A torrent's name tag: its hash or hashes, and where somebody may be found who has it.

    v1: 40 lowercase hex digits, v2: 64; at least one is given. name: what the link calls it ("" when it does not).
    peers: x.pe addresses. warnings: what was repaired or left out while parsing, for people; not compared.
    Source: BEP 9, BEP 52, BEP 53.
    """

    v1: str | None
    v2: str | None
    name: str = ""
    trackers: tuple[str, ...] = ()
    web_seeds: tuple[str, ...] = ()
    peers: tuple[Address, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.v1 is None and self.v2 is None:
            raise MagnetError("the magnet link has no infohash; it needs xt=urn:btih:… or xt=urn:btmh:…")
        if self.v1 is not None and re.fullmatch(r"[0-9a-f]{40}", self.v1) is None:
            raise MagnetError(f"{self.v1[:80]!r} is not a v1 infohash: 40 hex digits")
        if self.v2 is not None and re.fullmatch(r"[0-9a-f]{64}", self.v2) is None:
            raise MagnetError(f"{self.v2[:80]!r} is not a v2 infohash: 64 hex digits")

    @property
    def infohash(self) -> Infohash:
        """The v1 infohash where there is one, else the first 40 digits of the v2 one."""
        return Infohash(self.v1 if self.v1 is not None else (self.v2 or "")[:40])

    @property
    def cut_hint(self) -> str:
        """A word for who found nobody by a link with nothing behind its hash, as a shell leaves of one without quotes;
        "" where there is more.
        """
        if self.name or self.trackers or self.web_seeds or self.peers or self.warnings:
            return ""
        return (
            ". The link has nothing behind its infohash: a shell cuts it at the first & unless it is in quotes, "
            "'magnet:?…'"
        )

    @classmethod
    def parse(cls, text: str) -> Magnet:
        """Read a magnet link as people paste it: quoted, HTML-escaped, wrapped, with broken trackers.

        Only a missing, malformed or contradictory infohash is fatal; anything else is repaired, or left out with a
        line in `warnings`. Raises: MagnetError, never anything else.
        """
        if len(text) > MAX_MAGNET_CHARS:
            raise MagnetError(f"the magnet link has {len(text)} characters; more than {MAX_MAGNET_CHARS} are refused")
        return _Parser().parse(text)

    def __str__(self) -> str:
        """The canonical link: parsing it gives an equal Magnet."""
        parts = [f"xt=urn:btih:{self.v1}"] if self.v1 is not None else []
        parts += [f"xt=urn:btmh:1220{self.v2}"] if self.v2 is not None else []
        parts += [f"dn={quote(self.name, safe='')}"] if self.name else []
        parts += [f"tr={quote(url, safe='')}" for url in self.trackers]
        parts += [f"ws={quote(url, safe='')}" for url in self.web_seeds]
        parts += [f"x.pe={quote(str(peer), safe=':[]')}" for peer in self.peers]
        return "magnet:?" + "&".join(parts)


class _Parser:
    """One parse: collects the parameters, then builds the Magnet."""

    def __init__(self) -> None:
        self.v1: set[str] = set()
        self.v2: set[str] = set()
        self.name = ""
        self.links: dict[str, dict[str, None]] = {"tr": {}, "ws": {}}
        self.peers: dict[Address, None] = {}
        self.warnings: list[str] = []

    def parse(self, text: str) -> Magnet:
        # Wrapped terminals and mail put line breaks into links; spaces stay, they may belong to the name.
        text = re.sub(r"[\r\n\t]", "", text).strip().strip("\"'<>`").strip()
        match = re.match(r"magnet:(?://)?/?\?", text, re.IGNORECASE)
        if match is None:
            raise MagnetError(
                f"{text[:60]!r} is not a magnet link; it must start with magnet:?xt=urn:btih: "
                "(`swarm release list` prints those of known releases)"
            )
        for parameter in text[match.end() :].split("&"):
            key, _, raw = parameter.removeprefix("amp;").partition("=")
            self.take(re.sub(r"\.\d+$", "", key.strip().lower()), raw.strip())
        if len(self.v1) > 1 or len(self.v2) > 1:
            raise MagnetError("the magnet link names several torrents; paste one link at a time")
        return Magnet(
            v1=next(iter(self.v1), None),
            v2=next(iter(self.v2), None),
            name=self.name,
            trackers=tuple(self.links["tr"]),
            web_seeds=tuple(self.links["ws"]),
            peers=tuple(self.peers),
            warnings=tuple(self.warnings),
        )

    def take(self, key: str, raw: str) -> None:
        if key == "xt":
            self.take_topic(unquote(raw))
        elif key == "dn":
            name = unquote(raw.replace("+", " "))
            self.name = "".join(c for c in name if c.isprintable()).strip()[:_NAME_CHARS].strip()
        elif key == "tr":
            self.take_link("tr", "tracker", raw, _TRACKER_SCHEMES)
        elif key in ("ws", "as"):
            self.take_link("ws", "web seed", raw, _WEB_SEED_SCHEMES)
        elif key == "x.pe":
            self.take_peer(unquote(raw))

    def take_topic(self, topic: str) -> None:
        kind, _, digest = topic.rpartition(":")
        kind, digest = kind.lower(), digest.strip().lower()
        if kind == "urn:btih":
            self.v1.add(_v1_digest(digest))
        elif kind == "urn:btmh":
            if re.fullmatch(r"1220[0-9a-f]{64}", digest) is None:
                raise MagnetError(f"{topic[:100]!r} is not a v2 infohash: urn:btmh:1220 and 64 hex digits")
            self.v2.add(digest[4:])
        else:
            self.warn(f"left out {topic[:80]!r}: not a BitTorrent hash")

    def take_link(self, key: str, what: str, raw: str, schemes: tuple[str, ...]) -> None:
        url, repaired = _repair_url(raw)
        fault = _url_fault(url, schemes)
        if fault is None and len(self.links[key]) >= MAX_LINKS:
            fault = f"more than {MAX_LINKS} of them"
        if fault is not None:
            self.warn(f"left out {what} {url[:120]!r}: {fault}")
            return
        self.links[key][url] = None
        if repaired:
            self.warn(f"repaired {what} {unquote(raw)[:120]!r} to {url!r}")

    def take_peer(self, text: str) -> None:
        try:
            address = Address.parse(text)
        except BadArgument as error:
            self.warn(f"left out peer {text[:80]!r}: {error}")
            return
        if address.port == 0 or address.is_unspecified or not address.host.isascii() or len(self.peers) >= MAX_LINKS:
            self.warn(f"left out peer {text[:80]!r}: nobody can be dialled there")
            return
        self.peers[address] = None

    def warn(self, text: str) -> None:
        if len(self.warnings) < MAX_LINKS:
            self.warnings.append(text)


def _v1_digest(digest: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", digest):
        return digest
    if re.fullmatch(r"[a-z2-7]{32}", digest):
        return base64.b32decode(digest.upper()).hex()
    raise MagnetError(
        f"{digest[:80]!r} is not a v1 infohash: 40 hex digits or 32 base32 characters; copy the whole link"
    )


def _repair_url(raw: str) -> tuple[str, bool]:
    """Undo what sites that turn text into links do to `%2F`, and restore a lost slash after the scheme."""
    mended = re.sub(r"%https?://(?=[0-9A-Fa-f]{2})", "%", raw)
    url = re.sub(r"^([A-Za-z]+):/+(?=[^/])", lambda m: f"{m[1].lower()}://", unquote(mended).strip())
    return url, mended != raw or url.lower() != unquote(raw).strip().lower()


def _url_fault(url: str, schemes: tuple[str, ...]) -> str | None:
    """Why this URL cannot be used; None when it can."""
    if not url.isprintable() or " " in url or not url.isascii() or len(url) > 2048:
        return "unprintable or too long"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in schemes:
        return f"its scheme is none of {', '.join(schemes)}"
    if not host or re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host) is None or "%" in parts.netloc:
        return "it has no usable host"
    if parts.scheme == "udp" and not port:
        return "a udp tracker needs a port"
    return None
