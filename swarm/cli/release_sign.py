"""`swarm release sign` and `verify`: the publisher's manifest and signature, in the release's own folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.console import ProgressMeter, format_size, note, print_json
from swarm.cli.options import admission_options, json_option, keyring_at, keys_dir_option
from swarm.cli.release_files import torrent_path, write_atomically
from swarm.errors import BadArgument, CorruptRelease, VerificationError
from swarm.terms import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarm.client.admission import Admission, Provenance
    from swarm.release import FileDigest, Manifest, ReleaseLayout

SIGN_SCHEMA = "swarm.release.sign/1"
VERIFY_SCHEMA = "swarm.release.verify/1"
CHUNK_BYTES = 1 << 20


@click.command(
    epilog="Example: swarm release sign ./Mixtral-8x7B-v0.1 --key me --base-model mistralai/Mixtral-8x7B-v0.1"
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--key", "key_name", required=True, metavar="NAME", help="Which of your keys signs.")
@click.option("--version", default="", help="What you call this version.")
@click.option("--base-model", default="", help="What it was made from.")
@keys_dir_option
@json_option
def sign(folder: Path, key_name: str, version: str, base_model: str, keys_dir: Path | None, as_json: bool) -> None:
    """Write manifest.json and manifest.sig into DIR: every file's and every tensor's SHA-256 and place, signed.

    They belong to the release from then on: create its torrent afterwards. DIR's name is signed with it.
    """
    from swarm.identity import sign_detached
    from swarm.release import manifest_of, read_folder_layout
    from swarm.release.manifest import MANIFEST_DOMAIN, MANIFEST_FILE, SIGNATURE_FILE

    folder = folder.resolve()
    key = keyring_at(keys_dir).load(key_name)
    refuse_links(folder)
    refuse_foreign_manifest(folder / MANIFEST_FILE)
    layout = read_folder_layout(folder)
    files, tensors = digest_folder(folder), digest_tensors(folder, layout)
    manifest = manifest_of(layout, folder.name, files, tensors, version=version, base_model=base_model)
    data = manifest.to_bytes()
    (folder / SIGNATURE_FILE).unlink(missing_ok=True)  # never an old signature beside a new manifest
    write_atomically(folder / MANIFEST_FILE, data)
    write_atomically(folder / SIGNATURE_FILE, sign_detached(key, MANIFEST_DOMAIN, data))
    if as_json:
        counts = {"n_files": len(manifest.files), "n_tensors": len(manifest.tensors)}
        print_json(SIGN_SCHEMA, {"signer": key.node_id, "manifest": str(folder / MANIFEST_FILE), **counts})
        return
    n_files, n_tensors = len(manifest.files), len(manifest.tensors)
    note(f"signed {counted(n_files, 'file')} and {counted(n_tensors, 'tensor')} as {key.node_id}")
    if torrent_path(folder).exists():
        note(f"{torrent_path(folder)} is of the unsigned release; make it anew: swarm release create {folder}")
    click.echo(str(folder / SIGNATURE_FILE))


@click.command(epilog="Example: swarm release verify ./Mixtral-8x7B-v0.1 --publisher alice")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@admission_options
@json_option
def verify(folder: Path, admission: Admission, as_json: bool) -> None:
    """Check the signature in DIR, and every byte of every file against what was signed."""
    provenance, manifest = verify_folder(folder.resolve(), admission)
    n_files, n_tensors = len(manifest.files), len(manifest.tensors)
    total_bytes = sum(file.size_bytes for file in manifest.files.values())
    if as_json:
        counts = {"n_files": n_files, "n_tensors": n_tensors, "total_bytes": total_bytes}
        print_json(VERIFY_SCHEMA, {"signer": provenance.signer, "licence": provenance.licence, **counts})
        return
    click.echo(f"{provenance.words}; licence: {provenance.licence or 'not stated'}")
    read = f"{counted(n_files, 'file')} ({format_size(total_bytes)})"
    click.echo(f"the signature holds, every byte of {read} is as signed, and so is where {n_tensors} tensors lie")


def verify_folder(folder: Path, admission: Admission) -> tuple[Provenance, Manifest]:
    """Who signed it, and what.

    Raises: VerificationError for a file whose bytes differ; CorruptRelease; BadArgument for an unsigned folder.
    """
    from swarm.client.admission import admit
    from swarm.release import Manifest, list_folder, read_folder_layout
    from swarm.release.manifest import MANIFEST_FILE, SIGNATURE_FILE

    sizes = list_folder(folder)
    if SIGNATURE_FILE not in sizes:
        raise BadArgument(
            f"{folder} is not signed: it has no {SIGNATURE_FILE}; its publisher may offer a signed release"
        )
    refuse_links(folder)
    papers = read_papers(folder, sizes)
    provenance = admit(read_folder_layout(folder), sizes, "", papers, admission)
    manifest = Manifest.parse(papers[MANIFEST_FILE])
    for path, digest in digest_folder(folder).items():
        if digest.sha256 != manifest.files[path].sha256:
            raise VerificationError(
                f"{folder / path} is not the file that was signed: its SHA-256 differs; fetch the release again"
            )
    return provenance, manifest


def check_papers(folder: Path, admission: Admission, infohash: str = "") -> tuple[ReleaseLayout, Provenance]:
    """The folder's layout, held against what was signed where it is signed; no file is hashed. Raises: ReleaseError."""
    from swarm.client.admission import admit
    from swarm.release import list_folder, read_folder_layout

    layout, sizes = read_folder_layout(folder), list_folder(folder)
    return layout, admit(layout, sizes, infohash, read_papers(folder, sizes), admission)


def read_papers(folder: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """The manifest and its signature, where the folder is signed. Raises: CorruptRelease for one that is too large."""
    from swarm.client.admission import paper_names

    return {name: (folder / name).read_bytes() for name in paper_names(sizes)}


def refuse_links(folder: Path) -> None:
    """A signature is over files, not over what a link shows today. Raises: BadArgument."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            raise BadArgument(
                f"{path} is a symbolic link, which a signed release cannot hold; copy the file into {folder}"
            )


def refuse_foreign_manifest(path: Path) -> None:
    """A manifest.json that is not ours is not written over. Raises: BadArgument."""
    from swarm.release import Manifest
    from swarm.release.manifest import MAX_MANIFEST_BYTES

    if not path.exists():
        return
    try:
        with open(path, "rb") as file:
            Manifest.parse(file.read(MAX_MANIFEST_BYTES + 1))
    except CorruptRelease:
        raise BadArgument(f"{path} is not a manifest that `swarm release sign` wrote; move it away first") from None


def digest_folder(folder: Path) -> dict[str, FileDigest]:
    """Size and SHA-256 of every file but the manifest and its signature, read once, in pieces."""
    from swarm.release import FileDigest, list_folder
    from swarm.release.manifest import MANIFEST_FILE, SIGNATURE_FILE

    sizes = {path: n for path, n in list_folder(folder).items() if path not in (MANIFEST_FILE, SIGNATURE_FILE)}
    digests: dict[str, FileDigest] = {}
    done = 0
    with ProgressMeter(f"hashing {folder.name}", sum(sizes.values())) as meter:
        for path in sizes:
            digest, n_read = hashlib.sha256(), 0
            with open(folder / path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    n_read += len(chunk)
                    meter.update(done + n_read)
            done += n_read
            digests[path] = FileDigest(n_read, digest.hexdigest())
    return digests


def digest_tensors(folder: Path, layout: ReleaseLayout) -> dict[str, str]:
    """SHA-256 of every tensor's bytes as they lie in the files."""
    digests: dict[str, str] = {}
    done = 0
    with ProgressMeter(f"hashing {folder.name}'s tensors", sum(t.size_bytes for t in layout.tensors.values())) as meter:
        for name, tensor in layout.tensors.items():
            digest, left = hashlib.sha256(), tensor.size_bytes
            with open(folder / tensor.file, "rb") as file:
                file.seek(tensor.offset)
                while chunk := file.read(min(CHUNK_BYTES, left)):
                    digest.update(chunk)
                    left -= len(chunk)
            if left:
                raise CorruptRelease(f"{folder / tensor.file} shrank while it was read; try again once it is at rest")
            done += tensor.size_bytes
            meter.update(done)
            digests[name] = digest.hexdigest()
    return digests
