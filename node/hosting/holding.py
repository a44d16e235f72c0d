"""What one node hosts, in parts of any size: whole layers, trunks of layers, single experts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.terms import ExpertId, Span, merge_experts, merge_spans


@dataclass(frozen=True, slots=True)
class Holding:
    """Each layer is in spans or in trunks or in neither, and no expert is of a layer in spans; see `of`.

    spans: whole layers. trunks: layers without their experts. Both sorted and disjoint. experts: single ones, sorted.
    """

    spans: tuple[Span, ...] = ()
    trunks: tuple[Span, ...] = ()
    experts: tuple[ExpertId, ...] = ()

    @classmethod
    def of(cls, args: ModelArgs, spans: Sequence[Span], trunks: Sequence[Span], experts: Iterable[ExpertId]) -> Holding:
        """What is named twice counts once, as the larger part. Raises: BadArgument for what the model does not have."""
        for option, named in (("--layers", spans), ("--trunk", trunks)):
            for span in named:
                if span.end > args.n_layers:
                    raise BadArgument(
                        f"{option} {span} ends beyond the model's layers; write at most 0:{args.n_layers}"
                    )
        named_experts = set(experts)
        if (trunks or named_experts) and not args.is_moe:
            raise BadArgument("this model has no experts to host apart; host whole layers with --layers")
        for typed in merge_experts(named_experts):
            if typed.layers.end > args.n_layers or typed.expert_idxs[-1] >= args.n_experts:
                raise BadArgument(
                    f"--experts {typed} goes beyond the model: its layers are 0-{args.n_layers - 1}, of the experts "
                    f"0-{args.n_experts - 1} each"
                )
        whole = {layer_idx for span in spans for layer_idx in span}
        return cls(
            merge_spans(tuple(spans)),
            spans_of({layer_idx for span in trunks for layer_idx in span} - whole),
            tuple(sorted(expert for expert in named_experts if expert.layer_idx not in whole)),
        )

    def __bool__(self) -> bool:
        return bool(self.spans or self.trunks or self.experts)

    def as_event(self) -> dict[str, list[str]]:
        """As the command line takes it."""
        return {
            "spans": [str(span) for span in self.spans],
            "trunks": [str(span) for span in self.trunks],
            "experts": [str(experts) for experts in merge_experts(self.experts)],
        }

    @property
    def stages(self) -> tuple[Span, ...]:
        """The layers that sessions can have here, trunks among them."""
        return merge_spans((*self.spans, *self.trunks))

    def n_params(self, args: ModelArgs) -> int:
        """Of the layers and experts, without the model's two ends."""
        layers = sum(map(len, self.spans)) * args.n_layer_params
        return layers + sum(map(len, self.trunks)) * args.n_trunk_params + len(self.experts) * args.n_expert_params

    def whole_among(self, loaded: Iterable[Span]) -> tuple[Span, ...]:
        """Of these layers, those that are whole here."""
        return _common(self.spans, loaded)

    def trunks_among(self, loaded: Iterable[Span]) -> tuple[Span, ...]:
        return _common(self.trunks, loaded)


def spans_of(layers: Iterable[int]) -> tuple[Span, ...]:
    return merge_spans([Span(layer_idx, layer_idx + 1) for layer_idx in layers])


def _common(a: Iterable[Span], b: Iterable[Span]) -> tuple[Span, ...]:
    return spans_of({layer_idx for span in a for layer_idx in span} & {layer_idx for span in b for layer_idx in span})
