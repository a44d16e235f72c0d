"""What a release is, without its bytes: model args, tensors as byte ranges, ranges as pieces. Pure and sans-IO.

Promises that bytes from outside (configs, indexes, weight headers, zip directories, pickles) either parse or raise
CorruptRelease or UnsupportedArchitecture, within stated bounds of memory, and that no code in them runs. Does NOT know
torrents, networks or tensors' values; the only file access is read_folder_layout's.
"""

from swarm.release.args import ModelArgs
from swarm.release.catalogue import CatalogueEntry, find_entry
from swarm.release.configs import args_from_config, args_from_params
from swarm.release.files import choose_weight_files, companion_files
from swarm.release.folder import folder_licence, folder_reader, list_folder, read_folder_layout
from swarm.release.hollow import HollowRelease, hollow_release
from swarm.release.layout import ReleaseLayout
from swarm.release.licences import check_licence
from swarm.release.manifest import FileDigest, Manifest, manifest_of
from swarm.release.names import all_shapes
from swarm.release.pieces import FetchPlan, Part, PieceMap, pick_piece_size, plan_fetch
from swarm.release.ranges import ByteRange, TensorRange
from swarm.release.reading import drive, read_layout
from swarm.release.summary import ReleaseSummary, describe

__all__ = [
    "ByteRange",
    "CatalogueEntry",
    "FetchPlan",
    "FileDigest",
    "HollowRelease",
    "Manifest",
    "ModelArgs",
    "Part",
    "PieceMap",
    "ReleaseLayout",
    "ReleaseSummary",
    "TensorRange",
    "all_shapes",
    "args_from_config",
    "args_from_params",
    "check_licence",
    "choose_weight_files",
    "companion_files",
    "describe",
    "drive",
    "find_entry",
    "folder_licence",
    "folder_reader",
    "hollow_release",
    "list_folder",
    "manifest_of",
    "pick_piece_size",
    "plan_fetch",
    "read_folder_layout",
    "read_layout",
]
