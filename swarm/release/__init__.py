"""What a release is, without its bytes: model args, tensors as byte ranges, ranges as pieces. Pure and sans-IO.

Promises that bytes from outside (configs, indexes, weight headers, zip directories, pickles) either parse or raise
CorruptRelease or UnsupportedArchitecture, within stated bounds of memory, and that no code in them runs. Does NOT know
torrents, networks or tensors' values; the only file access is read_folder_layout's.
"""

from swarm.release.args import ModelArgs

__all__ = ["ModelArgs"]
