"""Whether a release may be hosted or used here: who signed it, whether it is what was signed, under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm.errors import CorruptRelease, Unauthenticated
from swarm.identity import verify_detached
from swarm.release import Manifest, ReleaseLayout, check_licence, find_entry
from swarm.release.manifest import MANIFEST_DOMAIN, MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE
from swarm.terms import NodeId, short_id


@dataclass(frozen=True, slots=True)
class Admission:
    """What this user asks of a release.

    accepted_licences: those that are not free for every use, but for this one. publishers: whose signature it needs,
    anybody's or none when empty. trusted: what this user calls the keys that it knows. hosts: weights are passed on, so
    their licence counts; False for a mere client.
    """

    accepted_licences: frozenset[str] = frozenset()
    publishers: frozenset[NodeId] = frozenset()
    trusted: Mapping[NodeId, str] = field(default_factory=dict)
    hosts: bool = True


@dataclass(frozen=True, slots=True)
class Provenance:
    """signer: whose signature was verified, None for a release that is known by its infohash alone. manifest: what they
    signed.
    """

    signer: NodeId | None
    licence: str | None
    words: str
    manifest: Manifest | None = field(default=None, repr=False)


def admit(
    layout: ReleaseLayout,
    sizes: Mapping[str, int],
    infohash: str,
    papers: Mapping[str, bytes],
    admission: Admission,
    digests: Mapping[str, str] | None = None,
) -> Provenance:
    """Return only if the release may be used as `admission` asks.

    sizes: path -> bytes of every file. infohash: "" for a folder. papers: manifest.json and manifest.sig, as far as
    they exist; a manifest without a signature says nothing. digests: SHA-256 of such files as were hashed.
    Raises: CorruptRelease for a signature or a manifest that does not hold; LicenceNotAccepted.
    """
    manifest, signer = _read_papers(papers)
    _check_publisher(signer, admission)
    if manifest is not None:
        manifest.check_files(sizes, "the release")
        manifest.check_layout(layout)
        for path, sha256 in (digests or {}).items():
            if path in manifest.files and manifest.files[path].sha256 != sha256:
                raise CorruptRelease(
                    f"{path} is not the file that was signed; get the release from its publisher again"
                )
    entry = find_entry(infohash) if infohash else None
    stated = (manifest.licence if manifest else None, layout.licence, entry.licence if entry else None)
    licences = [licence for licence in stated if licence]
    if admission.hosts:
        for licence in licences:
            check_licence(licence, admission.accepted_licences, "this release")
    words = _words(signer, manifest, infohash, admission)
    return Provenance(signer, licences[0] if licences else None, words, manifest)


def paper_names(sizes: Mapping[str, int]) -> list[str]:
    """Which papers a release has: none, or both. Raises: CorruptRelease for one that is too large to be one."""
    if SIGNATURE_FILE not in sizes:
        return []
    names = [name for name in (MANIFEST_FILE, SIGNATURE_FILE) if name in sizes]
    for name in names:
        if sizes[name] > MAX_MANIFEST_BYTES:
            raise CorruptRelease(f"{name} has {sizes[name]} bytes, and {MAX_MANIFEST_BYTES} is the most")
    return names


def _read_papers(papers: Mapping[str, bytes]) -> tuple[Manifest | None, NodeId | None]:
    signature = papers.get(SIGNATURE_FILE)
    if signature is None:
        return None, None
    data = papers.get(MANIFEST_FILE)
    if data is None:
        raise CorruptRelease(f"the release has a {SIGNATURE_FILE} but no {MANIFEST_FILE}; fetch the whole release")
    try:
        signer = verify_detached(signature, MANIFEST_DOMAIN, data)
    except Unauthenticated as error:
        raise CorruptRelease(
            f"{SIGNATURE_FILE} does not sign this {MANIFEST_FILE}: {error.message}; "
            "get the release from its publisher again"
        ) from None
    return Manifest.parse(data), signer  # what a stranger signed is parsed only once the signature holds


def _check_publisher(signer: NodeId | None, admission: Admission) -> None:
    if not admission.publishers or signer in admission.publishers:
        return
    by = "by nobody" if signer is None else f"by {signer}"
    wanted = ", ".join(admission.trusted.get(key, key) for key in sorted(admission.publishers))
    raise CorruptRelease(
        f"this release is signed {by}, and --publisher asks for {wanted}; get that publisher's own magnet link"
    )


def _words(signer: NodeId | None, manifest: Manifest | None, infohash: str, admission: Admission) -> str:
    """Also under which name it was signed: a torrent may give another or an old release of theirs any name."""
    if signer is None or manifest is None:
        return "unsigned: known by its infohash alone" if infohash else "unsigned"
    name = admission.trusted.get(signer)
    what = " ".join(filter(None, (manifest.name, manifest.version)))
    by = f"{name} ({short_id(signer)})" if name else f"{signer}, whom you have not said to trust,"
    return f"signed by {by} as {what}"
