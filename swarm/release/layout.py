"""ReleaseLayout: which bytes of which file make which tensor. Knows shapes and places, never values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarm.errors import BadArgument, CorruptRelease, LocalProtocolError
from swarm.release import names
from swarm.release.args import ModelArgs
from swarm.release.outside import REFETCH
from swarm.release.ranges import ByteRange, TensorRange
from swarm.terms import ExpertId, Span


@dataclass(frozen=True, slots=True)
class ReleaseLayout:
    """A release's tensors as byte ranges, under Mistral's own names.

    format: 'hf', 'mistral' (safetensors), 'mistral-pth' or 'mistral-fused' (.pt). tensors: all of the model's, or,
    when the layout was read for some spans or experts, at least theirs. companions: the small files that a node needs
    or must pass on (configs, tokenizers, licence). head_ranges: what was read to find all this; a fetcher has had
    these bytes already.
    licence: as the release's README or LICENSE states it, else None.
    """

    format: str
    args: ModelArgs
    tensors: Mapping[str, TensorRange]
    companions: tuple[str, ...]
    tokenizer_file: str | None
    head_ranges: tuple[ByteRange, ...] = ()
    licence: str | None = None

    def embedding_tensors(self) -> dict[str, TensorRange]:
        return self._checked(names.embedding_shapes(self.args))

    def head_tensors(self) -> dict[str, TensorRange]:
        """norm.weight with output.weight, or with tok_embeddings.weight where the two are tied."""
        return self._checked(names.head_shapes(self.args))

    def layer_tensors(self, layer_idx: int) -> dict[str, TensorRange]:
        """A whole layer: trunk and experts."""
        return self._checked(names.layer_shapes(self.args, self._known_layer(layer_idx)))

    def trunk_tensors(self, layer_idx: int) -> dict[str, TensorRange]:
        """A layer without its experts; for a dense model the whole layer."""
        return self._checked(names.trunk_shapes(self.args, self._known_layer(layer_idx)))

    def expert_tensors(self, expert: ExpertId) -> dict[str, TensorRange]:
        """w1, w2, w3 of one expert. Raises: BadArgument for an expert that the model does not have."""
        self._known_layer(expert.layer_idx)
        if not 0 <= expert.expert_idx < self.args.n_experts:
            raise BadArgument(f"expert {expert.expert_idx} is not among the model's {self.args.n_experts} experts")
        return self._checked(names.expert_shapes(self.args, expert.layer_idx, expert.expert_idx))

    def span_tensors(self, span: Span) -> dict[str, TensorRange]:
        """The span's layers, with the embeddings if it starts the model and the head if it ends it."""
        if span.end > self.args.n_layers:
            raise BadArgument(f"span {span} ends beyond the model's {self.args.n_layers} layers")
        found: dict[str, TensorRange] = {}
        if span.start == 0:
            found |= self.embedding_tensors()
        for layer_idx in span:
            found |= self.layer_tensors(layer_idx)
        if span.end == self.args.n_layers:
            found |= self.head_tensors()
        return found

    def _known_layer(self, layer_idx: int) -> int:
        if not 0 <= layer_idx < self.args.n_layers:
            raise BadArgument(f"layer {layer_idx} is not among the model's {self.args.n_layers} layers")
        return layer_idx

    def _checked(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorRange]:
        for name in shapes:
            if name not in self.tensors:
                raise LocalProtocolError(f"{name} lies outside the spans that this layout was read for")
        return {name: self.tensors[name] for name in shapes}


def expected_shapes(
    args: ModelArgs, spans: Iterable[Span] | None, experts: Iterable[ExpertId] = (), trunks: Iterable[Span] = ()
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that these need; spans None: the whole model. Raises: BadArgument."""
    if spans is None:
        return names.all_shapes(args)
    shapes: dict[str, tuple[int, ...]] = {}
    for expert in experts:
        if not (0 <= expert.layer_idx < args.n_layers and 0 <= expert.expert_idx < args.n_experts):
            raise BadArgument(
                f"expert {expert.layer_idx}:{expert.expert_idx} is not in the model's {args.n_layers} layers of "
                f"{args.n_experts} experts"
            )
        shapes |= names.expert_shapes(args, expert.layer_idx, expert.expert_idx)
    of_layer = [(span, names.layer_shapes) for span in spans] + [(span, names.trunk_shapes) for span in trunks]
    for span, shapes_of in of_layer:
        if span.end > args.n_layers:
            raise BadArgument(f"span {span} ends beyond the model's {args.n_layers} layers")
        if span.start == 0:
            shapes |= names.embedding_shapes(args)
        for layer_idx in span:
            shapes |= shapes_of(args, layer_idx)
        if span.end == args.n_layers:
            shapes |= names.head_shapes(args)
    return shapes


def check_tensors(found: Mapping[str, TensorRange], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Every expected tensor is there with its exact shape. Raises: CorruptRelease naming tensor, file and shapes."""
    for name, shape in expected.items():
        tensor = found.get(name)
        if tensor is None:
            raise CorruptRelease(f"{where} lacks the tensor {name} of shape {shape}; {REFETCH}")
        if tensor.shape != shape:
            raise CorruptRelease(
                f"{tensor.file} holds {name} with shape {tensor.shape}, but the config makes it {shape}; {REFETCH}"
            )
