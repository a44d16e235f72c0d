"""Layouts of safetensors releases: the places of tensors, what is read to find them, and what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BadArgument, CorruptRelease, LocalProtocolError, ReleaseError, UnsupportedArchitecture
from swarm.release import ByteRange, args_from_config, names, read_folder_layout, read_layout
from swarm.release.heads import parse_header
from swarm.terms import ExpertId, Span


def bytes_at(folder: Path, tensor: Any) -> bytes:
    with open(folder / tensor.file, "rb") as file:
        file.seek(tensor.offset)
        data: bytes = file.read(tensor.size_bytes)
    return data


def raw(tensor: Any) -> bytes:
    import torch

    data: bytes = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return data


@pytest.mark.parametrize("n_shards", [1, 3])
def test_every_tensor_is_where_safetensors_wrote_it(
    tmp_path: Path, tiny_tensors: dict[str, Any], tiny_config: dict[str, Any], hf_name_of: Any, n_shards: int
) -> None:
    from safetensors.torch import save_file

    shards: list[dict[str, Any]] = [{} for _ in range(n_shards)]
    for i, (name, tensor) in enumerate(tiny_tensors.items()):
        shards[i % n_shards][hf_name_of(name)] = tensor
    for i, shard in enumerate(shards):
        save_file(shard, tmp_path / f"model-{i + 1:05}-of-{n_shards:05}.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(tiny_config))
    layout = read_folder_layout(tmp_path)
    assert layout.tensors.keys() == tiny_tensors.keys()
    for name, tensor in tiny_tensors.items():
        assert layout.tensors[name].shape == tuple(tensor.shape)
        assert bytes_at(tmp_path, layout.tensors[name]) == raw(tensor)


def test_a_mistral_release_keeps_its_names(
    tmp_path: Path, tiny_tensors: dict[str, Any], tiny_params: dict[str, Any]
) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({name: t.to(torch.float16) for name, t in tiny_tensors.items()}, tmp_path / "consolidated.safetensors")
    (tmp_path / "params.json").write_text(json.dumps(tiny_params))
    layout = read_folder_layout(tmp_path)
    assert (layout.format, layout.args.rope_layout, layout.args.stored_dtype) == ("mistral", "interleaved", "fp16")
    name = "layers.2.feed_forward.experts.3.w2.weight"
    assert bytes_at(tmp_path, layout.tensors[name]) == raw(tiny_tensors[name].to(torch.float16))


@pytest.mark.parametrize("tied", [False, True])
def test_what_transformers_saves(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    torch.set_num_threads(1)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
    }
    sizes |= {"intermediate_size": 24, "vocab_size": 40}
    if tied:
        config = transformers.MistralConfig(**sizes, tie_word_embeddings=True, sliding_window=5)
        model = transformers.MistralForCausalLM(config)
    else:
        config = transformers.MixtralConfig(**sizes, num_local_experts=3, num_experts_per_tok=2)
        model = transformers.MixtralForCausalLM(config)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    layout = read_folder_layout(tmp_path)
    assert layout.args.n_params == sum(p.numel() for p in model.parameters())
    assert len({t.file for t in layout.tensors.values()}) > 2
    assert layout.args.windows == ((5, 5) if tied else (None, None))
    assert bytes_at(tmp_path, layout.tensors["norm.weight"]) == raw(model.state_dict()["model.norm.weight"])
    assert ("output.weight" in layout.head_tensors()) is not tied


def test_groups_of_tensors(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    layout = hf_release(tiny_config, 10_000).layout()
    layer = layout.layer_tensors(1)
    trunk = layout.trunk_tensors(1)
    experts = [layout.expert_tensors(ExpertId(1, i)) for i in range(4)]
    assert len(trunk) == 7
    assert [len(expert) for expert in experts] == [3] * 4
    assert layer.keys() == set(trunk).union(*experts)
    assert layout.embedding_tensors().keys() == {"tok_embeddings.weight"}
    assert layout.head_tensors().keys() == {"norm.weight", "output.weight"}
    assert layout.span_tensors(Span(0, 3)).keys() == layout.tensors.keys()
    assert layout.span_tensors(Span(1, 2)) == layer
    assert layout.span_tensors(Span(0, 1)).keys() == layout.layer_tensors(0).keys() | {"tok_embeddings.weight"}
    with pytest.raises(BadArgument, match="4:5"):
        layout.span_tensors(Span(4, 5))
    with pytest.raises(BadArgument, match="expert 4"):
        layout.expert_tensors(ExpertId(1, 4))


def test_tied_head_and_ignored_copies(hf_release: Any, tiny_config: dict[str, Any], head_of: Any) -> None:
    release = hf_release(tiny_config | {"tie_word_embeddings": True}, 10_000, index=False)
    extra = {"lm_head.weight": (40, 16), "model.layers.0.self_attn.rotary_emb.inv_freq": (3,)}
    release.add("model-00099-of-00099.safetensors", *head_of(extra))
    layout = release.layout()
    assert layout.head_tensors().keys() == {"norm.weight", "tok_embeddings.weight"}
    assert "output.weight" not in layout.tensors


def test_a_span_reads_only_the_heads_of_its_shards(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 4_000)
    layout = release.layout([Span(1, 2)])
    shards_asked = {r.file for r in release.asked if r.file.endswith(".safetensors")}
    assert shards_asked == {t.file for t in layout.layer_tensors(1).values()}
    assert len(shards_asked) < len([file for file in release.sizes if file.endswith(".safetensors")])
    assert layout.head_ranges == tuple(release.asked)
    assert layout.span_tensors(Span(1, 2)).keys() == layout.layer_tensors(1).keys()
    with pytest.raises(LocalProtocolError):
        layout.span_tensors(Span(0, 3))
    with pytest.raises(BadArgument):
        release.layout([Span(2, 4)])


def test_reading_takes_few_rounds(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 4_000)
    reading = read_layout(release.sizes, None)
    next(reading)
    n_rounds = 1

    def count_round(wanted: list[ByteRange]) -> list[ByteRange]:
        nonlocal n_rounds
        n_rounds += 1
        return wanted

    wanted = [ByteRange("config.json", 0, release.sizes["config.json"])]
    try:
        while True:
            wanted = count_round(reading.send([release.read(r) for r in wanted]))
    except StopIteration:
        pass
    assert n_rounds == 4  # config, index, lengths, headers: each may wait for the network


def test_wrong_answers_are_our_own_bug(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    for answers in ([], [b""]):
        reading = read_layout(hf_release(tiny_config, 4_000).sizes, None)
        next(reading)
        with pytest.raises(LocalProtocolError):
            reading.send(answers)


def test_hf_is_preferred_and_its_weights_must_be_there(
    hf_release: Any, tiny_config: dict[str, Any], tiny_params: dict[str, Any], head_of: Any
) -> None:
    release = hf_release(tiny_config, 10_000)
    release.add_json("params.json", tiny_params)
    shapes = names.all_shapes(args_from_config(tiny_config))
    release.add("consolidated.safetensors", *head_of(shapes))
    assert release.layout().format == "hf"
    for file in [file for file in release.sizes if file.startswith("model")]:
        del release.sizes[file]
    assert release.layout().format == "mistral"
    del release.sizes["params.json"]
    with pytest.raises(CorruptRelease, match=r"params\.json"):
        release.layout()


@pytest.mark.parametrize(
    ("files", "error", "word"),
    [
        ({}, CorruptRelease, "no weights"),
        ({"config.json": 9, "model.safetensors.index.json": 9}, CorruptRelease, "shards"),
        ({"mistral.Q4_K_M.gguf": 9}, UnsupportedArchitecture, "GGUF"),
        ({"config.json": 9, "pytorch_model-00001-of-00002.bin": 9}, UnsupportedArchitecture, "pickled"),
        ({"params.json": 9, "consolidated.00.pth": 9, "consolidated.01.pth": 9}, UnsupportedArchitecture, "2 pickled"),
        ({"model.safetensors": 100}, CorruptRelease, "config.json"),
        ({"config.json": 5 << 20, "model.safetensors": 100}, CorruptRelease, "most"),
    ],
)
def test_folders_that_hold_no_release(files: dict[str, int], error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        next(read_layout(files, None))


def test_an_index_that_names_a_missing_shard(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 4_000)
    lost = next(file for file in release.sizes if file.startswith("model-00002"))
    del release.sizes[lost]
    with pytest.raises(CorruptRelease, match=lost):
        release.layout([Span(2, 3)])


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"model.norm.weight": None}, CorruptRelease, "norm.weight"),
        ({"model.norm.weight": "config.json"}, CorruptRelease, "config.json"),
        ({"model.norm.weight": "../../etc/passwd"}, CorruptRelease, "passwd"),
        ({"model.norm.weight": 7}, CorruptRelease, "7"),
        ({"../../etc/x": "model-00001-of-00002.safetensors"}, CorruptRelease, "etc"),
        ({"norm.weight": "model-00001-of-00002.safetensors"}, CorruptRelease, "twice"),
        ({"model.layers.0.self_attn.q_proj.bias": "model-00001-of-00002.safetensors"}, UnsupportedArchitecture, "bias"),
        ({"model.norm.weight": "model-00001-of-00002.safetensors"}, CorruptRelease, "say so|lacks"),
    ],
)
def test_an_index_that_is_wrong(
    hf_release: Any, tiny_config: dict[str, Any], change: dict[str, Any], error: type[Exception], word: str
) -> None:
    release = hf_release(tiny_config, 20_000)
    index = json.loads(release.known["model.safetensors.index.json"][0])
    assert set(index["weight_map"].values()) == {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    index["weight_map"] = {k: v for k, v in (index["weight_map"] | change).items() if v is not None}
    release.sizes.pop("model.safetensors.index.json")
    release.add_json("model.safetensors.index.json", index)
    with pytest.raises(error, match=word):
        release.layout()


def test_a_tensor_of_another_shape_is_named_with_file_and_both_shapes(
    fake_release: Any, tiny_config: dict[str, Any], head_of: Any, hf_name_of: Any
) -> None:
    shapes = {hf_name_of(n): shape for n, shape in names.all_shapes(args_from_config(tiny_config)).items()}
    shapes["model.layers.1.self_attn.k_proj.weight"] = (24, 16)
    fake_release.add_json("config.json", tiny_config)
    fake_release.add("model.safetensors", *head_of(shapes))
    with pytest.raises(CorruptRelease, match=r"model.safetensors.*layers.1.attention.wk.*\(24, 16\).*\(12, 16\)"):
        fake_release.layout()
    with pytest.raises(CorruptRelease, match="wk"):
        fake_release.layout([Span(0, 1)])  # seen in a head that was read, though layer 1 is not asked for


def test_a_tensor_in_two_shards(hf_release: Any, tiny_config: dict[str, Any], head_of: Any) -> None:
    release = hf_release(tiny_config, 10_000, index=False)
    release.add("model-00099-of-00099.safetensors", *head_of({"model.norm.weight": (16,)}))
    with pytest.raises(CorruptRelease, match=r"both hold norm\.weight"):
        release.layout()


def test_a_missing_tensor(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 10_000, index=False)
    del release.sizes[max(file for file in release.sizes if file.endswith(".safetensors"))]
    with pytest.raises(CorruptRelease, match="lacks the tensor"):
        release.layout()


def entry(dtype: Any = "BF16", shape: Any = (2, 3), offsets: Any = (0, 12)) -> Callable[[], bytes]:
    value = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return lambda: json.dumps({"norm.weight": value}).encode()


def test_a_head_that_is_accepted() -> None:
    header = entry()()
    (tensor,) = parse_header(header, "model.safetensors", 8 + len(header) + 12).values()
    assert (tensor.offset, tensor.size_bytes, tensor.shape) == (8 + len(header), 12, (2, 3))


@pytest.mark.parametrize(
    "header",
    [
        entry(dtype="F8_E4M3"),
        entry(dtype="I8"),
        entry(dtype=["BF16"]),
        entry(shape=[2, -3]),
        entry(shape=[1 << 60, 1 << 60]),
        entry(shape=[2, 3.0]),
        entry(shape=[[2], 3]),
        entry(shape="23"),
        entry(offsets=[0, 13]),
        entry(offsets=[12, 0]),
        entry(offsets=[1000, 1012]),
        entry(offsets=[0, 12, 24]),
        entry(offsets=[0, 11]),
        lambda: b'{"norm.weight": 5}',
        lambda: (
            b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[],"data_offsets":[3,7]}}'
        ),
        lambda: b'{"../x":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}',
        lambda: (
            b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        ),
        lambda: b"[]",
        lambda: b"\xff{}",
        lambda: b"[" * 100_000,
        lambda: b'{"a":' * 100_000,
        lambda: b'{"a": ' + b"9" * 100_000 + b"}",
    ],
)
def test_heads_that_are_refused(header: Callable[[], bytes]) -> None:
    with pytest.raises(ReleaseError) as caught:
        parse_header(header(), "model.safetensors", 8 + len(header()) + 12)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("declared", [0, 1, 10**9, 100_000_001, 1 << 63])
def test_a_declared_length_beyond_the_file_or_the_bound(
    fake_release: Any, tiny_config: dict[str, Any], declared: int
) -> None:
    fake_release.add_json("config.json", tiny_config)
    fake_release.add("model.safetensors", struct.pack("<Q", declared), 200_000_000)
    with pytest.raises(CorruptRelease, match="header of"):
        fake_release.layout()


def test_three_hundred_thousand_tensors_are_refused() -> None:
    header = b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(300_000))
    with pytest.raises(CorruptRelease, match=r"30000\d tensors"):
        parse_header(b"{" + header + b"}", "model.safetensors", 10**9)


def test_a_header_that_would_unfold_to_gigabytes_is_not_parsed() -> None:
    with pytest.raises(CorruptRelease, match="JSON values"):
        parse_header(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}", "model.safetensors", 10**9)
