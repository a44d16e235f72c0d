"""read_layout: from a release's file list to its layout, reading only configs and the weights' heads. Sans-IO."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from typing import Any

from swarm.errors import CorruptRelease, LocalProtocolError
from swarm.release import files as release_files
from swarm.release import heads, names
from swarm.release.args import MAX_TENSORS, ModelArgs
from swarm.release.configs import args_from_config, args_from_params
from swarm.release.files import WeightFiles
from swarm.release.fused import args_of_fused, read_fused
from swarm.release.layout import ReleaseLayout, check_tensors, expected_shapes
from swarm.release.outside import REFETCH, parse_json_object, show
from swarm.release.pth import read_pth
from swarm.release.ranges import ByteRange, TensorRange
from swarm.terms import ExpertId, Span

MAX_CONFIG_BYTES = 4 << 20
MAX_INDEX_BYTES = 8 << 20
_MAX_CONFIG_VALUES = 100_000

LayoutReading = Generator[list[ByteRange], list[bytes], ReleaseLayout]
_TableReading = Generator[list[ByteRange], list[bytes], dict[str, TensorRange]]


def read_layout(
    files: Mapping[str, int],
    spans: Sequence[Span] | None = None,
    experts: Sequence[ExpertId] = (),
    trunks: Sequence[Span] = (),
) -> LayoutReading:
    """Yields the byte ranges that it wants, is sent their bytes in that order, returns the layout.

    files: path relative to the release's folder -> size in bytes. spans: what will be hosted: then only the heads of
    the shards that carry those layers are read, and the layout holds at least their tensors. None: the whole model.
    experts: single experts beside the spans; trunks: layers without their experts.
    Bounds: config 4 MiB, index and one safetensors header 8 MiB, 40,000 tensors: 64 MB of memory beside the result.
    Raises: CorruptRelease, UnsupportedArchitecture; BadArgument for a span beyond the model; LocalProtocolError when
    it is sent other lengths than it asked for.
    """
    ranges_read: list[ByteRange] = []
    steps = _read(files, spans, experts, trunks)
    wanted = next(steps)
    while True:
        answers = yield wanted
        if [len(data) for data in answers] != [r.size_bytes for r in wanted]:
            raise LocalProtocolError("read_layout was not sent the bytes that it asked for")
        ranges_read += wanted
        try:
            wanted = steps.send(answers)
        except StopIteration as done:
            return dataclasses.replace(done.value, head_ranges=tuple(ranges_read))


def drive(reading: LayoutReading, read: Callable[[ByteRange], bytes]) -> ReleaseLayout:
    """Run read_layout with a blocking read(range) -> exactly its bytes."""
    try:
        wanted = next(reading)
        while True:
            wanted = reading.send([read(byte_range) for byte_range in wanted])
    except StopIteration as done:
        layout: ReleaseLayout = done.value
        return layout


def _read(
    files: Mapping[str, int], spans: Sequence[Span] | None, experts: Sequence[ExpertId], trunks: Sequence[Span]
) -> LayoutReading:
    weights = release_files.choose_weight_files(files)
    _refuse_large(files, weights.config, MAX_CONFIG_BYTES)
    licences = release_files.licence_files(files)
    config_bytes, *licence_texts = yield [
        ByteRange(weights.config, 0, files[weights.config]),
        *(ByteRange(name, 0, min(files[name], release_files.MAX_LICENCE_BYTES)) for name in licences),
    ]
    config = parse_json_object(config_bytes, weights.config, _MAX_CONFIG_VALUES)
    args = _read_args(weights, config)
    expected = expected_shapes(args, spans, experts, trunks)
    shapes = names.all_shapes(args)
    if weights.format == "mistral-pth":
        found = yield from _read_pth(weights.shards[0], files, args, expected, shapes)
    elif weights.format == "mistral-fused":
        found = yield from read_fused(weights.shards, files, args, expected)
    else:
        found = yield from _read_safetensors(weights, files, args, expected, shapes)
    check_tensors(found, {n: shape for n, shape in shapes.items() if n in expected or n in found}, "the release")
    return ReleaseLayout(
        format=weights.format,
        args=_with_stored_dtype(args, found),
        tensors=found,
        companions=release_files.companion_files(files),
        tokenizer_file=release_files.choose_tokenizer_file(files),
        licence=release_files.find_licence(dict(zip(licences, licence_texts, strict=True))),
    )


def _read_args(weights: WeightFiles, config: Mapping[str, Any]) -> ModelArgs:
    if weights.format == "hf":
        return args_from_config(config)
    return args_of_fused(config, weights.config) if weights.format == "mistral-fused" else args_from_params(config)


def _read_pth(
    file: str, files: Mapping[str, int], args: ModelArgs, expected: Mapping[str, object], known: Container[str]
) -> _TableReading:
    def refuse_unknown(name: str) -> None:
        if name not in known and not names.is_ignorable(name, args):
            raise names.refuse_unknown(name, file)

    found = yield from read_pth(file, files[file], expected.__contains__, refuse_unknown)
    return found


def _read_safetensors(
    weights: WeightFiles,
    files: Mapping[str, int],
    args: ModelArgs,
    expected: Mapping[str, object],
    known: Container[str],
) -> _TableReading:
    """The tables of all shards, or with an index of those that carry an expected tensor, under canonical names."""
    shard_of: dict[str, str] = {}
    shards: Sequence[str] = weights.shards
    if weights.index is not None:
        _refuse_large(files, weights.index, MAX_INDEX_BYTES)
        (index_bytes,) = yield [ByteRange(weights.index, 0, files[weights.index])]
        shard_of = _parse_index(index_bytes, weights.index, files)
        for name in shard_of:
            if name not in known and not names.is_ignorable(name, args):
                raise names.refuse_unknown(name, weights.index)
        missing = next((name for name in expected if name not in shard_of), None)
        if missing is not None:
            raise CorruptRelease(f"{weights.index} does not say which shard holds {missing}; {REFETCH}")
        shards = sorted({shard_of[name] for name in expected})
    tables = yield from _read_heads(shards, files)
    found: dict[str, TensorRange] = {}
    for stored_name, tensor in tables:
        name = names.canonical_name(stored_name)
        if name not in known:
            if names.is_ignorable(name, args):
                continue
            raise names.refuse_unknown(stored_name, tensor.file)
        if name in found:
            raise CorruptRelease(f"{found[name].file} and {tensor.file} both hold {name}; {REFETCH}")
        if shard_of and shard_of.get(name) != tensor.file:
            raise CorruptRelease(f"{tensor.file} holds {name}, but {weights.index} does not say so; {REFETCH}")
        found[name] = tensor
    return found


def _read_heads(
    shards: Sequence[str], files: Mapping[str, int]
) -> Generator[list[ByteRange], list[bytes], list[tuple[str, TensorRange]]]:
    for shard in shards:
        if files[shard] < heads.LENGTH_BYTES + 2:
            raise CorruptRelease(f"{shard} is empty or cut short ({files[shard]} bytes); {REFETCH}")
    lengths = yield [ByteRange(shard, 0, heads.LENGTH_BYTES) for shard in shards]
    sizes = [heads.header_size(length, shard, files[shard]) for shard, length in zip(shards, lengths, strict=True)]
    tables: list[tuple[str, TensorRange]] = []
    for batch in _batches(sizes, heads.MAX_HEADER_BYTES):
        headers = yield [ByteRange(shards[i], heads.LENGTH_BYTES, sizes[i]) for i in batch]
        for i, header in zip(batch, headers, strict=True):
            tables += heads.parse_header(header, shards[i], files[shards[i]]).items()
            if len(tables) > MAX_TENSORS:
                raise CorruptRelease(f"the shards declare more than {MAX_TENSORS} tensors; {REFETCH}")
    return tables


def _batches(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Indices into sizes, in order, in as few runs as keep each run's sum within `most` (or of one index)."""
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            yield range(start, i)
            start, total = i, 0
        total += size
    yield range(start, len(sizes))


def _parse_index(data: bytes, index: str, files: Mapping[str, int]) -> dict[str, str]:
    """Canonical tensor name -> shard. Raises: CorruptRelease, also for a shard that the release does not have."""
    weight_map = parse_json_object(data, index, 2 * MAX_TENSORS).get("weight_map")
    if not isinstance(weight_map, dict) or len(weight_map) > MAX_TENSORS:
        raise CorruptRelease(f"{index} holds no weight_map of tensors to shards, or too large a one; {REFETCH}")
    shard_of: dict[str, str] = {}
    for stored_name, shard in weight_map.items():
        name = names.canonical_name(names.check_name(stored_name, index))
        if not isinstance(shard, str) or shard not in files:
            raise CorruptRelease(f"{index} names the shard {show(shard)}, which the release does not have; {REFETCH}")
        if name in shard_of:
            raise CorruptRelease(f"{index} names {name} twice; {REFETCH}")
        shard_of[name] = shard
    return shard_of


def _refuse_large(files: Mapping[str, int], file: str, most: int) -> None:
    if files[file] > most:
        raise CorruptRelease(f"{file} has {files[file]} bytes, and {most} is the most; {REFETCH}")


def _with_stored_dtype(args: ModelArgs, found: Mapping[str, TensorRange]) -> ModelArgs:
    """What the heads say outweighs the config: the dtype of most bytes. No heads read: the config's word stands."""
    if not found:
        return args
    n_bytes: Counter[str] = Counter()
    for tensor in found.values():
        n_bytes[tensor.dtype] += tensor.size_bytes
    return dataclasses.replace(args, stored_dtype=n_bytes.most_common(1)[0][0])
