"""Ranges as pieces, and what a span of the true 8x7B costs to fetch, computed from its sizes without its data."""

from __future__ import annotations

import io
import pickle
import random
import struct
from collections import OrderedDict
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import BadArgument, CorruptRelease
from swarm.release import ByteRange, FetchPlan, PieceMap, args_from_params, names, pick_piece_size, plan_fetch
from swarm.terms import ExpertId, Span

MIB = 1 << 20
MIXTRAL_CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32768,
    "sliding_window": None,
}
MIXTRAL_PARAMS: dict[str, Any] = {
    "dim": 4096,
    "n_layers": 32,
    "head_dim": 128,
    "hidden_dim": 14336,
    "n_heads": 32,
    "n_kv_heads": 8,
    "norm_eps": 1e-05,
    "vocab_size": 32000,
    "moe": {"num_experts_per_tok": 2, "num_experts": 8},
}


def map_of(sizes: dict[str, int], piece_size: int, aligned: bool) -> PieceMap:
    offsets, at = {}, 0
    for file in sorted(sizes):
        offsets[file] = at
        at += sizes[file]
        if aligned:  # hybrid and v2 torrents pad files to whole pieces
            at += -at % piece_size
    return PieceMap(piece_size, offsets, sizes)


def test_pieces_of_ranges() -> None:
    pieces = PieceMap(10, {"a": 0, "empty": 25, "b": 25}, {"a": 25, "empty": 0, "b": 7})
    assert pieces.pieces_of(ByteRange("a", 0, 25)) == range(3)
    assert pieces.pieces_of(ByteRange("a", 9, 1)) == range(1)
    assert pieces.pieces_of(ByteRange("a", 9, 2)) == range(2)
    assert pieces.pieces_of(ByteRange("b", 0, 7)) == range(2, 4)
    assert pieces.pieces_of(ByteRange("empty", 0, 0)) == range(0)
    assert pieces.bytes_in([0, 1, 2, 3]) == 32
    assert pieces.bytes_in([3]) == 2  # the last piece is short
    assert pieces.bytes_in([2, 3, 3]) == 12
    for outside in (ByteRange("c", 0, 1), ByteRange("b", 0, 8), ByteRange("b", -1, 2), ByteRange("b", 7, -1)):
        with pytest.raises(CorruptRelease):
            pieces.pieces_of(outside)


def test_padding_is_not_transferred() -> None:
    pieces = PieceMap(10, {"a": 0, "b": 10}, {"a": 3, "b": 12})
    assert pieces.bytes_in([0]) == 3
    assert pieces.bytes_in([0, 1, 2]) == 15


def test_files_that_overlap_or_lack_a_size() -> None:
    for offsets, sizes in (({"a": 0, "b": 4}, {"a": 5, "b": 5}), ({"a": -1}, {"a": 5}), ({"a": 0}, {})):
        with pytest.raises(CorruptRelease):
            PieceMap(10, offsets, sizes)


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    gaps=st.lists(st.integers(0, 9), min_size=6, max_size=6),
    piece_size=st.integers(1, 16),
    data=st.data(),
)
@settings(deadline=None, max_examples=80)
def test_against_counting_bytes_one_by_one(sizes: list[int], gaps: list[int], piece_size: int, data: Any) -> None:
    starts = [0, *accumulate(size + gap for size, gap in zip(sizes, gaps, strict=False))][: len(sizes)]
    files = {f"f{i}": size for i, size in enumerate(sizes)}
    pieces = PieceMap(piece_size, dict(zip(files, starts, strict=True)), files)
    file = data.draw(st.sampled_from(sorted(files)))
    offset = data.draw(st.integers(0, files[file]))
    wanted = ByteRange(file, offset, data.draw(st.integers(0, files[file] - offset)))
    stream = [pieces.offsets[file] + at for at in range(wanted.offset, wanted.end)]
    assert set(pieces.pieces_of(wanted)) == {at // piece_size for at in stream}
    chosen = data.draw(st.sets(st.integers(0, 40)))
    real = {start + at for start, size in zip(starts, sizes, strict=True) for at in range(size)}
    assert pieces.bytes_in(chosen) == sum(at // piece_size in chosen for at in real)


def test_piece_sizes() -> None:
    gb = 10**9
    assert [pick_piece_size(n) for n in (0, 10**5, 120 * 10**6)] == [256 << 10] * 3
    assert pick_piece_size(14_483_464_192) == MIB
    assert pick_piece_size(93_405_585_408) == MIB
    assert pick_piece_size(281_241_268_224) == 2 * MIB
    assert max(pick_piece_size(n * gb) for n in range(0, 2000, 10)) == 4 * MIB
    assert pick_piece_size(93_405_585_408, "mistral-fused") == MIB // 2
    assert 281_241_268_224 // (2 * MIB) * 20 < 3_000_000


def plan(release: Any, spans: list[Span], aligned: bool = True) -> Any:
    layout = release.layout(spans)
    pieces = map_of(release.sizes, pick_piece_size(sum(release.sizes.values())), aligned)
    return layout, pieces, plan_fetch(layout, pieces, spans)


def ratio(fetch: FetchPlan) -> float:
    """Bytes fetched for each byte of use; 1.0 is perfect."""
    return fetch.fetched_bytes / (fetch.needed_bytes + fetch.companion_bytes)


@pytest.mark.parametrize("aligned", [True, False])
def test_spans_of_the_true_8x7b_in_hf_shards(hf_release: Any, aligned: bool) -> None:
    release = hf_release(MIXTRAL_CONFIG, 5_000_000_000)
    assert sum(file.endswith(".safetensors") for file in release.sizes) == 19
    for span in (Span(0, 1), Span(7, 8), Span(12, 20), Span(24, 32), Span(0, 32)):
        layout, pieces, fetch = plan(release, [span], aligned)
        assert pieces.piece_size == MIB
        assert 1.0 <= ratio(fetch) < 1.004, span
        assert fetch.needed_bytes == sum(t.size_bytes for t in layout.span_tensors(span).values())
    assert fetch.needed_bytes == 93_405_585_408
    assert fetch.fetched_bytes == sum(release.sizes.values())
    one_expert = layout.expert_tensors(ExpertId(3, 5)).values()
    assert sum(t.size_bytes for t in one_expert) == 352_321_536
    expert_pieces = {p for t in one_expert for p in pieces.pieces_of(t.byte_range)}
    assert pieces.bytes_in(expert_pieces) / 352_321_536 < 1.012


def build_true_pth(release: Any, compact: bool) -> None:
    """The 8x7B torrent's archive without its weights: local headers, data.pkl and a zip64 directory at their places."""
    torch = pytest.importorskip("torch")
    shapes = names.all_shapes(args_from_params(MIXTRAL_PARAMS))

    class Tensor:
        def __init__(self, key: str, shape: tuple[int, ...]) -> None:
            self.key, self.shape = key, shape
            self.n_values = shape[0] * (shape[1] if len(shape) > 1 else 1)

    class Storage(Tensor):
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return ("storage", torch.BFloat16Storage, value.key, "cpu", value.n_values)
            return None

        def reducer_override(self, value: Any) -> Any:
            if type(value) is Tensor:
                stride = (value.shape[1], 1) if len(value.shape) > 1 else (1,)
                storage = Storage(value.key, value.shape)
                return torch._utils._rebuild_tensor_v2, (storage, 0, value.shape, stride, False, OrderedDict())
            return NotImplemented

    pickled = io.BytesIO()
    Pickler(pickled, 2).dump({name: Tensor(str(i), shape) for i, (name, shape) in enumerate(shapes.items())})
    data_pkl = pickled.getvalue()
    entries: list[tuple[str, int, bytes | None]] = [("consolidated/data.pkl", len(data_pkl), data_pkl)]
    entries += [
        (f"consolidated/data/{i}", 2 * Tensor("", shape).n_values, None) for i, shape in enumerate(shapes.values())
    ]
    at, directory = 0, b""
    for name, size, data in entries:
        big = size > 0xFFFF if not compact else size > 0xFFFFFFF0
        n_extra = -(at + 30 + len(name)) % 64
        n_extra += 64 if n_extra < 4 else 0
        narrow = 0xFFFFFFFF if big else size
        local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, narrow, narrow, len(name), n_extra)
        release.add("consolidated.00.pth", local + name.encode(), offset=at)
        extra = struct.pack("<QQ", size, size) if big else b""
        if at >= 0xFFFFFFFF:
            extra += struct.pack("<Q", at)
        extra = struct.pack("<HH", 1, len(extra)) + extra if extra else b""
        directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, narrow, narrow, len(name),
                                 len(extra), 0, 0, 0, 0, min(at, 0xFFFFFFFF)) + name.encode() + extra  # fmt: skip
        at += 30 + len(name) + n_extra
        if data is not None:
            release.add("consolidated.00.pth", data, offset=at)
        at += size
    n = len(entries)
    tail = directory + struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, n, n, len(directory), at)
    tail += struct.pack("<4sIQI", b"PK\x06\x07", 0, at + len(directory), 1)
    tail += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n, n, len(directory), 0xFFFFFFFF, 0)
    release.add("consolidated.00.pth", tail, offset=at)


@pytest.mark.parametrize("compact", [True, False])
def test_spans_of_the_true_8x7b_torrent(fake_release: Any, compact: bool) -> None:
    release = fake_release
    release.add_json("params.json", MIXTRAL_PARAMS)
    release.add("tokenizer.model", b"", 493_443)
    release.add("RELEASE", b"Mixtral")
    build_true_pth(release, compact)
    assert release.sizes["consolidated.00.pth"] > 93_405_585_408
    for span in (Span(0, 1), Span(7, 8), Span(12, 20), Span(24, 32)):
        layout, pieces, fetch = plan(release, [span], aligned=False)
        assert layout.args.stored_dtype == "bf16"
        assert layout.companions == ("RELEASE", "params.json", "tokenizer.model")
        assert pieces.piece_size == MIB
        assert 1.0 <= ratio(fetch) < 1.004, span
        assert fetch.needed_bytes == sum(t.size_bytes for t in layout.span_tensors(span).values())
    whole, _, fetch = plan(release, [Span(0, 32)])
    assert len(whole.tensors) == 995
    assert fetch.needed_bytes == 93_405_585_408
    assert ratio(fetch) < 1.00001


def test_a_plan_is_in_the_order_of_computation(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 8_000)
    layout = release.layout()
    pieces = map_of(release.sizes, 1024, aligned=True)
    fetch = plan_fetch(layout, pieces, [Span(2, 3), Span(0, 1)])
    assert [part for part, _ in fetch.pieces_by_layer] == ["embeddings", 0, 2, "head"]
    for part, part_pieces in fetch.pieces_by_layer:
        if isinstance(part, int):
            tensors = layout.layer_tensors(part).values()
            assert set(part_pieces) == {p for t in tensors for p in pieces.pieces_of(t.byte_range)}
            assert list(part_pieces) == sorted(set(part_pieces))
    assert fetch.all_pieces == set(fetch.small_pieces).union(*(p for _, p in fetch.pieces_by_layer))
    for head in layout.head_ranges:
        assert set(pieces.pieces_of(head)) <= set(fetch.small_pieces)
    assert fetch.companion_bytes == sum(release.sizes[file] for file in layout.companions)
    with pytest.raises(BadArgument):
        plan_fetch(layout, pieces, [])


def test_tied_embeddings_are_needed_once(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config | {"tie_word_embeddings": True}, 8_000)
    layout = release.layout()
    fetch = plan_fetch(layout, map_of(release.sizes, 512, aligned=True), [Span(0, 3)])
    assert fetch.needed_bytes == layout.args.n_params * 2
    last = plan_fetch(layout, map_of(release.sizes, 512, aligned=True), [Span(2, 3)])
    assert last.needed_bytes == layout.args.n_layer_params * 2 + 2 * (16 + 40 * 16)


def test_a_torrent_without_the_layouts_files(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    layout = hf_release(tiny_config, 8_000).layout()
    with pytest.raises(CorruptRelease, match="not in the torrent"):
        plan_fetch(layout, PieceMap(512, {"config.json": 0}, {"config.json": 4000}), [Span(0, 1)])


def test_layers_far_apart_share_no_more_than_edges(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 10**6)
    layout = release.layout()
    pieces = map_of(release.sizes, 128, aligned=True)
    rng = random.Random(3)
    layer = rng.randrange(3)
    others = [x for x in range(3) if x != layer]
    mine = set(dict(plan_fetch(layout, pieces, [Span(layer, layer + 1)]).pieces_by_layer)[layer])
    for other in others:
        theirs = set(dict(plan_fetch(layout, pieces, [Span(other, other + 1)]).pieces_by_layer)[other])
        assert len(mine & theirs) <= 1
