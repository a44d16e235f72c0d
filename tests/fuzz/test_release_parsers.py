"""Invariant: bytes from outside parse, or raise CorruptRelease or UnsupportedArchitecture; never anything else."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release import ModelArgs, args_from_config, args_from_params, drive, names, read_layout
from swarm.release.closed_pickle import read_tensor_dict
from swarm.release.files import find_licence
from swarm.release.heads import parse_header
from swarm.release.zip_directory import MAX_TAIL_BYTES, find_directory, parse_directory
from swarm.terms import Span

REFUSALS = (CorruptRelease, UnsupportedArchitecture)
fuzzed = settings(max_examples=100, deadline=10_000, suppress_health_check=list(HealthCheck))

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.integers(-3, 70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["BF16", "F32", "mistral", "mixtral", "full_attention", "default", "yarn"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)

CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "intermediate_size": 6,
    "vocab_size": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "rope_parameters": None,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "max_position_embeddings": 64,
    "sliding_window": None,
    "layer_types": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "quantization_config": None,
}
PARAMS: dict[str, Any] = {
    "dim": 4,
    "n_layers": 2,
    "head_dim": 2,
    "hidden_dim": 6,
    "n_heads": 2,
    "n_kv_heads": 1,
    "norm_eps": 1e-5,
    "vocab_size": 8,
    "rope_theta": 1e6,
    "sliding_window": None,
    "max_seq_len": 64,
    "tied_embeddings": False,
    "moe": {"num_experts": 2, "num_experts_per_tok": 1},
}
SHAPES = names.all_shapes(args_from_params(PARAMS))


def check_message(error: Exception) -> None:
    """What a stranger wrote neither floods a terminal nor reaches it unescaped."""
    assert len(str(error)) < 1000
    assert str(error).isprintable()


def is_sound(args: ModelArgs) -> bool:
    return args.n_params >= args.n_active_params > 0 and len(args.windows) == args.n_layers <= 1024


@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), values), values)
@fuzzed
def test_config_json(changes: dict[str, Any], whole: Any) -> None:
    for config in (CONFIG | changes, whole if isinstance(whole, dict) else {}):
        try:
            assert is_sound(args_from_config(config))
        except REFUSALS as error:
            check_message(error)


@given(st.dictionaries(st.sampled_from(sorted(PARAMS)), values), values)
@fuzzed
def test_params_json(changes: dict[str, Any], whole: Any) -> None:
    for params in (PARAMS | changes, whole if isinstance(whole, dict) else {}):
        try:
            assert is_sound(args_from_params(params))
        except REFUSALS as error:
            check_message(error)


def head(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> tuple[bytes, int]:
    entries, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return json.dumps(entries).encode(), at


def mutated(data: Any, draw: Any) -> bytes:
    """The bytes with a few of them changed, cut out or put in."""
    edited = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(edited) - 1)))
        match draw(st.integers(0, 3)):
            case 0 if edited:
                edited[at] = draw(st.integers(0, 255))
            case 1:
                del edited[at : at + draw(st.integers(1, 40))]
            case 2:
                edited[at:at] = draw(st.binary(max_size=12))
            case _:
                edited[at : at + 4] = struct.pack("<I", draw(st.sampled_from([0, 1, 1 << 16, 0xFFFFFFFF, 0x7FFFFFFF])))
    return bytes(edited)


def check_header(header: bytes, file_bytes: int) -> None:
    try:
        tensors = parse_header(header, "model.safetensors", file_bytes)
    except REFUSALS as error:
        check_message(error)
        return
    for tensor in tensors.values():
        assert 8 + len(header) <= tensor.offset <= tensor.offset + tensor.size_bytes <= file_bytes


@given(st.binary(max_size=300) | values.map(lambda v: json.dumps(v).encode()))
@fuzzed
def test_any_bytes_as_a_header(header: bytes) -> None:
    check_header(header, 8 + len(header) + 1000)


@given(st.data())
@fuzzed
def test_a_mutated_header(data: Any) -> None:
    header, n_data = head()
    check_header(mutated(header, data.draw), 8 + len(header) + n_data)


@given(
    st.dictionaries(
        st.sampled_from(["norm.weight", "a", "../a", "__metadata__"]),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["BF16", "F32", "I8", 3]),
                "shape": st.lists(st.integers(-1, 3) | values, max_size=3),
                "data_offsets": st.lists(st.integers(-1, 20) | values, min_size=2, max_size=3),
            },
        )
        | values,
    )
)
@fuzzed
def test_a_header_of_odd_entries(entries: dict[str, Any]) -> None:
    header = json.dumps(entries).encode()
    check_header(header, 8 + len(header) + 12)


def layout_of(files: Mapping[str, bytes], spans: list[Span] | None) -> None:
    """Any release in memory: a layout whose ranges lie within its files, or a refusal."""
    sizes = {name: len(data) for name, data in files.items()}
    try:
        layout = drive(read_layout(sizes, spans), lambda r: files[r.file][r.offset : r.end])
    except REFUSALS as error:
        check_message(error)
        return
    for tensor in layout.tensors.values():
        assert 0 <= tensor.offset <= tensor.offset + tensor.size_bytes <= sizes[tensor.file]
    for span in spans or [Span(0, layout.args.n_layers)]:
        assert layout.span_tensors(span)


def hf_files() -> dict[str, bytes]:
    shapes = {f"model.{name}": shape for name, shape in SHAPES.items()}
    translated = {
        "model.tok_embeddings.weight": "model.embed_tokens.weight",
        "model.output.weight": "lm_head.weight",
        ".attention_norm.": ".input_layernorm.",
        ".ffn_norm.": ".post_attention_layernorm.",
        ".attention.wq.": ".self_attn.q_proj.",
        ".attention.wk.": ".self_attn.k_proj.",
        ".attention.wv.": ".self_attn.v_proj.",
        ".attention.wo.": ".self_attn.o_proj.",
        ".feed_forward.": ".block_sparse_moe.",
    }
    for ours, theirs in translated.items():
        shapes = {name.replace(ours, theirs): shape for name, shape in shapes.items()}
    header, n_data = head(shapes)
    shard = struct.pack("<Q", len(header)) + header + bytes(n_data)
    index = {"weight_map": dict.fromkeys(shapes, "model-00001-of-00001.safetensors")}
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00001.safetensors": shard,
    }


@pytest.fixture(scope="module")
def pth_files() -> dict[str, bytes]:
    torch = pytest.importorskip("torch")
    saved = io.BytesIO()
    torch.save({name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in SHAPES.items()}, saved)
    return {"params.json": json.dumps(PARAMS).encode(), "consolidated.00.pth": saved.getvalue()}


def test_the_unmutated_releases_are_read(pth_files: dict[str, bytes]) -> None:
    for files in (hf_files(), pth_files):
        sizes = {name: len(data) for name, data in files.items()}
        layout = drive(read_layout(sizes, None), lambda r, files=files: files[r.file][r.offset : r.end])  # type: ignore[misc]
        assert layout.tensors.keys() == SHAPES.keys()


@given(st.data())
@fuzzed
def test_a_mutated_hf_release(data: Any) -> None:
    files = hf_files()
    victim = data.draw(st.sampled_from(sorted(files)))
    if victim.endswith(".safetensors"):  # its first bytes matter, its zeros do not
        n_head = 8 + struct.unpack("<Q", files[victim][:8])[0]
        files[victim] = mutated(files[victim][:n_head], data.draw) + files[victim][n_head:]
    else:
        files[victim] = mutated(files[victim], data.draw)
    layout_of(files, data.draw(st.sampled_from([None, [Span(0, 1)], [Span(1, 2)]])))


@given(st.data())
@fuzzed
def test_a_mutated_pth_release(pth_files: dict[str, bytes], data: Any) -> None:
    files = dict(pth_files)
    whole = files["consolidated.00.pth"]
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        n_directory = len(whole) - archive.start_dir
        pickled = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    match data.draw(st.integers(0, 2)):
        case 0:  # the directory, its size kept so that more than its place is looked at
            edited = bytearray(whole)
            for _ in range(data.draw(st.integers(1, 3))):
                edited[-1 - data.draw(st.integers(0, n_directory - 1))] = data.draw(st.integers(0, 255))
            files["consolidated.00.pth"] = bytes(edited)
        case 1:  # the pickle, in its place
            edited = bytearray(whole)
            at = whole.find(pickled[:64])
            for _ in range(data.draw(st.integers(1, 3))):
                edited[at + data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
            files["consolidated.00.pth"] = bytes(edited)
        case _:
            files["consolidated.00.pth"] = mutated(whole, data.draw)
    layout_of(files, data.draw(st.sampled_from([None, [Span(1, 2)]])))


@given(st.binary(max_size=400), st.binary(max_size=100))
@fuzzed
def test_any_bytes_as_a_zip_tail(before: bytes, after: bytes) -> None:
    for tail in (before, before + b"PK\x05\x06" + after, before + b"PK\x05\x06" + bytes(8) + after):
        try:
            place = find_directory(tail, "x.pth", len(tail))
            parse_directory(tail[place.offset :][: place.size_bytes], place, "x.pth")
        except REFUSALS:
            pass
    assert len(before) < MAX_TAIL_BYTES


OPCODES = [bytes((code,)) for code in b".(N\x88\x89])}tsuQRb\x85\x86\x870"]
OPCODES += [b"K\x03", b"M\x03\x00", b"J\x03\x00\x00\x00", b"\x8a\x01\x05", b"G" + bytes(8), b"q\x00", b"h\x00"]
OPCODES += [b"r\x00\x01\x00\x00", b"j\x00\x01\x00\x00", b"X\x01\x00\x00\x00a", b"X\x07\x00\x00\x00storage"]
OPCODES += [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nBFloat16Storage\n", b"ccollections\nOrderedDict\n"]
OPCODES += [b"cos\nsystem\n"]


@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=3), max_size=60))
@fuzzed
def test_any_opcodes(opcodes: list[bytes]) -> None:
    for pickled in (b"\x80\x02" + b"".join(opcodes) + b".", b"\x80\x02}" + b"".join(opcodes)):
        try:
            assert isinstance(read_tensor_dict(pickled, "x.pth"), dict)
        except CorruptRelease as error:
            check_message(error)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('a pickle ran')",)


@given(st.recursive(scalars | st.builds(Evil), lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=4)))
@fuzzed
def test_any_pickle_runs_nothing(value: Any) -> None:
    try:
        assert read_tensor_dict(pickle.dumps(value, 2), "x.pth") == {}
    except CorruptRelease:
        pass


@given(st.binary(max_size=200), st.text(max_size=100))
@fuzzed
def test_any_licence_text(data: bytes, text: str) -> None:
    for readme in (data, b"---\n" + data, f"---\nlicense: {text}\n---".encode("utf-8", "replace")):
        licence = find_licence({"README.md": readme, "LICENSE": data})
        assert licence is None or (licence.isascii() and licence.isprintable())


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "config.json",
                "params.json",
                "model.safetensors",
                "consolidated.safetensors",
                "consolidated.00.pth",
                "README.md",
                "LICENSE",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "a.gguf",
            ]
        ),
        st.binary(max_size=60) | values.map(lambda v: json.dumps(v).encode()) | st.just(json.dumps(CONFIG).encode()),
    )
)
@fuzzed
def test_any_folder(files: dict[str, bytes]) -> None:
    layout_of(files, None)
