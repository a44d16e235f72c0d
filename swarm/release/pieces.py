"""Bytes as BitTorrent pieces: what to fetch for some layers, in which order, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from swarm.errors import BadArgument, CorruptRelease
from swarm.release.layout import ReleaseLayout
from swarm.release.outside import show
from swarm.release.ranges import ByteRange, TensorRange
from swarm.terms import ExpertId, Span, merge_spans

Part = int | str | ExpertId
"""A layer's index, 'embeddings' or 'head', or a single expert."""

_PIECE_SIZES = ((1 << 30, 256 << 10), (160 << 30, 1 << 20), (512 << 30, 2 << 20))


def pick_piece_size(total_bytes: int, format: str = "") -> int:
    """256 KiB below 1 GiB, 1 MiB (7B, 8x7B) below 160 GiB, 2 MiB (8x22B, Large 2) below 512 GiB, else 4 MiB (Large 3).

    Smaller pieces waste less at the edges of what a node hosts: a single expert of 8x7B or 8x22B, up to three ranges,
    costs at most 1.02 of its bytes, where 4 and 8 MiB cost 1.04. Larger ones keep the torrent's metadata small: 20
    bytes a piece, 1.8 MB for 8x7B and 2.7 MB for 8x22B. format: the layout's; where experts are fused, half the size,
    since each of an expert's ranges lies apart, and so does what tells where it is.
    """
    picked = next((piece_size for below, piece_size in _PIECE_SIZES if total_bytes < below), 4 << 20)
    return picked // 2 if format == "mistral-fused" else picked


@dataclass(frozen=True)
class PieceMap:
    """Where a torrent's files lie among its pieces.

    offsets: file -> offset in the torrent's one long stream of bytes. sizes: file -> bytes. Pad files are left out of
    both: they never travel. Files may not overlap. Raises: CorruptRelease.
    """

    piece_size: int
    offsets: Mapping[str, int]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.piece_size < 1 or self.offsets.keys() != self.sizes.keys():
            raise CorruptRelease(f"a torrent with pieces of {self.piece_size} bytes or with files of unknown size")
        end = 0
        for start, stop in self._extents:
            if start < end:
                raise CorruptRelease("two files of the torrent overlap; get the magnet link from its publisher again")
            end = stop

    @cached_property
    def _extents(self) -> list[tuple[int, int]]:
        """Each file's [start, stop) in the stream, in order, empty files left out."""
        return sorted((at, at + self.sizes[file]) for file, at in self.offsets.items() if self.sizes[file])

    def pieces_of(self, byte_range: ByteRange) -> range:
        """The pieces that carry a range of a file; none for an empty range. Raises: CorruptRelease beyond the file."""
        size = self.sizes.get(byte_range.file)
        if size is None or not 0 <= byte_range.offset <= byte_range.end <= size:
            raise CorruptRelease(
                f"bytes {byte_range.offset}..{byte_range.end} of {show(byte_range.file)} are not in the torrent "
                f"({'no such file' if size is None else f'{size} bytes'}); get its magnet link from the publisher again"
            )
        if not byte_range.size_bytes:
            return range(0)
        start = self.offsets[byte_range.file] + byte_range.offset
        return range(start // self.piece_size, (start + byte_range.size_bytes - 1) // self.piece_size + 1)

    def bytes_in(self, pieces: Iterable[int]) -> int:
        """What fetching these pieces transfers: whole pieces, the last one short, padding not counted."""
        total = 0
        extents = iter(self._extents)
        extent = next(extents, None)
        for piece in sorted(set(pieces)):
            start, stop = piece * self.piece_size, (piece + 1) * self.piece_size
            while extent is not None and extent[0] < stop:
                total += max(0, min(stop, extent[1]) - max(start, extent[0]))
                if extent[1] > stop:
                    break
                extent = next(extents, None)
        return total


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What a node fetches to host some spans, trunks or experts.

    needed_bytes: of their tensors. companion_bytes: of the small files. fetched_bytes: of all_pieces, which carry
    both and what read_layout reads. pieces_by_layer: each part with all pieces that it needs,
    first needed first; neighbours may share a piece. small_pieces: companions and heads, to fetch before all others.
    """

    needed_bytes: int
    companion_bytes: int
    fetched_bytes: int
    small_pieces: tuple[int, ...]
    pieces_by_layer: tuple[tuple[Part, tuple[int, ...]], ...]
    all_pieces: frozenset[int]


def plan_fetch(
    layout: ReleaseLayout,
    piece_map: PieceMap,
    spans: Sequence[Span],
    experts: Sequence[ExpertId] = (),
    trunks: Sequence[Span] = (),
) -> FetchPlan:
    """Which pieces make these spans, trunks and single experts loadable, part by part.

    Experts come after the layers, each a part; those within a span are part of it, and so are trunks.
    Raises: BadArgument, CorruptRelease.
    """
    if not spans and not experts and not trunks:
        raise BadArgument("no layers to fetch; name a span such as 0:8")
    parts: list[tuple[Part, dict[str, TensorRange]]] = []
    for span in merge_spans((*spans, *trunks)):
        if span.end > layout.args.n_layers:
            raise BadArgument(f"span {span} ends beyond the model's {layout.args.n_layers} layers")
        if span.start == 0:
            parts.append(("embeddings", layout.embedding_tensors()))
        for layer_idx in span:
            is_whole = any(layer_idx in whole for whole in spans)
            parts.append((layer_idx, (layout.layer_tensors if is_whole else layout.trunk_tensors)(layer_idx)))
        if span.end == layout.args.n_layers:
            parts.append(("head", layout.head_tensors()))
    alone = sorted({e for e in experts if not any(e.layer_idx in span for span in spans)})
    parts += [(expert, layout.expert_tensors(expert)) for expert in alone]
    companions = [ByteRange(file, 0, piece_map.sizes.get(file, 0)) for file in layout.companions]
    small = _pieces(piece_map, [*companions, *layout.head_ranges])
    pieces_by_layer = tuple(
        (part, tuple(sorted(_pieces(piece_map, [t.byte_range for t in tensors.values()])))) for part, tensors in parts
    )
    all_pieces = small.union(*(pieces for _, pieces in pieces_by_layer))
    needed = {name: tensor.size_bytes for _, tensors in parts for name, tensor in tensors.items()}
    return FetchPlan(
        needed_bytes=sum(needed.values()),
        companion_bytes=sum(r.size_bytes for r in companions),
        fetched_bytes=piece_map.bytes_in(all_pieces),
        small_pieces=tuple(sorted(small)),
        pieces_by_layer=pieces_by_layer,
        all_pieces=frozenset(all_pieces),
    )


def _pieces(piece_map: PieceMap, ranges: Iterable[ByteRange]) -> set[int]:
    pieces: set[int] = set()
    for byte_range in ranges:
        pieces.update(piece_map.pieces_of(byte_range))
    return pieces
