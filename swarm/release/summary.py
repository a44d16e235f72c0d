"""What a release is, in figures for people: the content of `swarm release inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.release.args import ModelArgs
from swarm.release.layout import ReleaseLayout
from swarm.release.ranges import TensorRange
from swarm.terms import ExpertId


@dataclass(frozen=True, slots=True)
class ReleaseSummary:
    """Bytes are those of the stored weights. expert_bytes: one expert's, 0 when dense. context: positions.

    layer_bytes: one layer's with all its experts; trunk_bytes: without them. total_bytes: all files, tensor_bytes: all
    tensors, tied embeddings once. windows: the distinct sliding windows, shortest first (empty: full attention).
    """

    architecture: str
    format: str
    n_params: int
    n_active_params: int
    n_layers: int
    n_experts: int
    n_experts_per_tok: int
    context: int
    windows: tuple[int, ...]
    stored_dtype: str
    layer_bytes: int
    trunk_bytes: int
    expert_bytes: int
    embedding_bytes: int
    head_bytes: int
    tensor_bytes: int
    total_bytes: int
    n_files: int
    licence: str | None
    tokenizer_file: str | None


def describe(layout: ReleaseLayout, files: Mapping[str, int]) -> ReleaseSummary:
    """Sum a release up. layout: read for the whole model (spans=None). files: path -> size of every file."""
    args: ModelArgs = layout.args
    layers = [_n_bytes(layout.layer_tensors(layer_idx)) for layer_idx in range(args.n_layers)]
    embedding_bytes = _n_bytes(layout.embedding_tensors())
    head_bytes = _n_bytes(layout.head_tensors())
    return ReleaseSummary(
        architecture=args.architecture,
        format=layout.format,
        n_params=args.n_params,
        n_active_params=args.n_active_params,
        n_layers=args.n_layers,
        n_experts=args.n_experts,
        n_experts_per_tok=args.n_experts_per_tok,
        context=args.max_positions,
        windows=tuple(sorted({window for window in args.windows if window is not None})),
        stored_dtype=args.stored_dtype,
        layer_bytes=layers[0],
        trunk_bytes=_n_bytes(layout.trunk_tensors(0)),
        expert_bytes=_n_bytes(layout.expert_tensors(ExpertId(0, 0))) if args.is_moe else 0,
        embedding_bytes=embedding_bytes,
        head_bytes=head_bytes,
        tensor_bytes=sum(layers) + embedding_bytes + head_bytes - (embedding_bytes if args.tied_embeddings else 0),
        total_bytes=sum(files.values()),
        n_files=len(files),
        licence=layout.licence,
        tokenizer_file=layout.tokenizer_file,
    )


def _n_bytes(tensors: Mapping[str, TensorRange]) -> int:
    return sum(tensor.size_bytes for tensor in tensors.values())
