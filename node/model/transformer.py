"""A span of a Mistral-family transformer: layers that come and go one by one, and a model's two ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.attention import Attention
from node.model.batch import Batch, Chunk
from node.model.cache import KVCache
from node.model.experts import Elsewhere, ExpertStore, Steps, feed_forward, finish
from node.model.fused import FusedLayer, fused
from node.model.layer import Layer
from node.model.moe import MoE
from node.model.norm import RMSNorm
from node.model.on_gpu import GpuLayer, Replays, gpu_layer
from node.model.ops import Linear, Numerics
from node.model.rope import RopeTable, halves_to_interleaved
from node.model.taking import Taker
from swarm.errors import LocalProtocolError
from swarm.release import ModelArgs
from swarm.terms import Span


class SpanModel:
    """The layers of `span` of one model, and its ends where they are loaded. Holds no session state.

    Weights are converted to the numerics' dtype and to device when loaded; hidden state and KV caches share that dtype.
    trunks: of its layers, those that are loaded without their experts.
    experts: those that are here, of its own layers and of others; elsewhere: who is asked for those that are not.
    One thread at a time; results are inference tensors (read them, don't write to them). Each row's bits never depend
    on which span of layers shares its node; with exact numerics they depend on the tokens before it and nothing else.
    """

    def __init__(
        self,
        args: ModelArgs,
        span: Span,
        numerics: Numerics,
        *,
        device: torch.device | str = "cpu",
        trunks: Sequence[Span] = (),
        experts: ExpertStore | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        if span.end > args.n_layers:
            raise LocalProtocolError(f"span {span} ends after the model's {args.n_layers} layers")
        self.args = args
        self.span = span
        self.numerics = numerics
        self.dtype = numerics.dtype
        self.device = torch.device(device)
        self.trunks = tuple(trunks)
        self.experts = experts or ExpertStore(args, numerics, device=device)
        self.elsewhere = elsewhere
        self._rope = RopeTable(args.head_dim, args.rope_theta, self.device)
        self._layers: dict[int, Layer | FusedLayer | GpuLayer] = {}
        self._replays = Replays()
        self._tok_embeddings: Tensor | None = None
        self._norm: RMSNorm | None = None
        self._output: Linear | None = None

    def load_layer(self, layer_idx: int, tensors: Mapping[str, Tensor]) -> None:
        """Take one layer's weights, keyed as in Mistral's files without 'layers.N.', as stored (rope layout and all).

        Those of a trunk have no experts: the store has them, gets them later, or never.

        Raises: LocalProtocolError for a layer outside of the span, a tensor missing, or one of another shape.
        """
        if layer_idx not in self.span:
            raise LocalProtocolError(f"layer {layer_idx} is outside of the span {self.span}")
        take = Taker(tensors, self.dtype, self.device)
        layer = Layer(
            RMSNorm(take("attention_norm.weight", self.args.dim), self.args.norm_eps),
            self._attention(take),
            RMSNorm(take("ffn_norm.weight", self.args.dim), self.args.norm_eps),
            self._moe(take, layer_idx)
            if self.args.is_moe
            else feed_forward(take, "feed_forward.", self.args, self.numerics),
        )
        self._layers[layer_idx] = fused(layer) or gpu_layer(layer) or layer

    def is_trunk(self, layer_idx: int) -> bool:
        return any(layer_idx in span for span in self.trunks)

    def share(self, other: SpanModel) -> None:
        """Take over what other has loaded of this span, and its ends where they are this span's: the same weights, once
        in memory, in both models.
        """
        self._layers |= {layer_idx: layer for layer_idx, layer in other._layers.items() if layer_idx in self.span}
        if self.span.start == 0 and other._tok_embeddings is not None:
            self._tok_embeddings = other._tok_embeddings
        if self.span.end == self.args.n_layers and other._norm is not None:
            self._norm, self._output = other._norm, other._output

    def load_embeddings(self, tok_embeddings: Tensor) -> None:
        """tok_embeddings: (V, D)."""
        tensors = {"tok_embeddings.weight": tok_embeddings}
        take = Taker(tensors, self.dtype, self.device)
        self._tok_embeddings = take("tok_embeddings.weight", self.args.vocab_size, self.args.dim)

    def load_head(self, norm: Tensor, output: Tensor) -> None:
        """norm: (D,). output: (V, D), the embeddings' own tensor in a model whose ends are tied."""
        take = Taker({"norm.weight": norm, "output.weight": output}, self.dtype, self.device)
        self._norm = RMSNorm(take("norm.weight", self.args.dim), self.args.norm_eps)
        output = take("output.weight", self.args.vocab_size, self.args.dim)
        self._output = Linear(output, self.numerics.without_quantisation)

    @torch.inference_mode()
    def embed(self, ids: Tensor) -> Tensor:
        """ids: int64 (T,), each below vocab_size -> h (T, D). Raises: LocalProtocolError before load_embeddings."""
        if self._tok_embeddings is None:
            raise LocalProtocolError("the embeddings are not loaded")
        ids = ids.pin_memory() if self.device.type == "cuda" and ids.device.type == "cpu" else ids
        return F.embedding(ids.to(self.device, non_blocking=True), self._tok_embeddings)

    @torch.inference_mode()
    def forward(self, h: Tensor, cache: KVCache, position: int, layers: Span | None = None) -> Tensor:
        """Run `layers` (default: all of the cache's) over one chunk of one session and extend its cache.

        Shapes: h (T, D) in the model's dtype -> (T, D). position: tokens cached before; the cache is truncated to it.
        Does not embed, normalise the result, or count a step that failed: the cache then ends at `position`.
        Raises: PositionMismatch, SessionLost, ContextLengthExceeded, StageFull (no memory for another page);
        LocalProtocolError for a layer that is not loaded.
        """
        self.require_loaded(layers or cache.span, cache.span)
        cache.truncate(position)
        cache.require_room(h.shape[0])
        cache.prepare(h.shape[0])
        return self.forward_batch(h, [Chunk(cache, h.shape[0])], layers)

    @torch.inference_mode()
    def forward_batch(self, h: Tensor, chunks: Sequence[Chunk], layers: Span | None = None) -> Tensor:
        """Run `layers` (default: all of the caches') over a chunk of each of several sessions and extend their caches.

        Shapes: h (T, D), the chunks' rows one behind the other -> (T, D). The caches are truncated to where their chunk
        begins, have room for it, and pages prepared; no cache comes twice. A batch that failed is not counted.
        """
        return finish(self.batch_steps(h, chunks, layers))

    @torch.inference_mode()
    def batch_steps(self, h: Tensor, chunks: Sequence[Chunk], layers: Span | None = None) -> Steps[Tensor]:
        """forward_batch for one who has something else to do while experts are away.

        Between its steps other batches may go through the model, of other caches.
        """
        layers = layers or chunks[0].cache.span
        batch = Batch(chunks, self._rope, self.args.head_dim, self.dtype)
        on_gpu = [layer for idx in layers if isinstance(layer := self._layers[idx], GpuLayer) and layer.is_whole]
        if len(on_gpu) == len(layers):
            h = self._replays.run(on_gpu, h, batch, layers)
        else:
            for layer_idx in layers:
                h = yield from self._layers[layer_idx].steps(h, batch, layer_idx)
        for chunk in chunks:
            chunk.cache.advance(chunk.n_rows)
        return h

    @torch.inference_mode()
    def logits(self, h: Tensor) -> Tensor:
        """h (T, D), the last layer's output -> fp32 (T, V). Raises: LocalProtocolError before load_head."""
        if self._norm is None or self._output is None:
            raise LocalProtocolError("the head is not loaded")
        return self._output(self._norm(h)).float()

    def require_loaded(self, layers: Span, cached: Span) -> None:
        """Raises: LocalProtocolError when a session that caches `cached` cannot run `layers` here."""
        if not cached.covers(layers):
            raise LocalProtocolError(f"the session caches layers {cached}, and the step is for {layers}")
        for layer_idx in layers:
            if layer_idx not in self._layers:
                raise LocalProtocolError(f"layer {layer_idx} is not loaded")

    def _attention(self, take: Taker) -> Attention:
        args = self.args
        numerics = self.numerics
        wq = take("attention.wq.weight", args.n_heads * args.head_dim, args.dim)
        wk = take("attention.wk.weight", args.n_kv_heads * args.head_dim, args.dim)
        wv = take("attention.wv.weight", args.n_kv_heads * args.head_dim, args.dim)
        if args.rope_layout == "halves":
            wq = halves_to_interleaved(wq, args.head_dim)
            wk = halves_to_interleaved(wk, args.head_dim)
        wo = take("attention.wo.weight", args.dim, args.n_heads * args.head_dim)
        wqkv = Linear(torch.cat((wq, wk, wv)), numerics)
        return Attention(wqkv, Linear(wo, numerics), args.n_heads, args.n_kv_heads, args.head_dim)

    def _moe(self, take: Taker, layer_idx: int) -> MoE:
        args, numerics = self.args, self.numerics
        weight = take("feed_forward.gate.weight", args.n_experts, args.dim)
        experts = self.experts.of_layer(layer_idx)
        for expert_idx in () if self.is_trunk(layer_idx) else range(args.n_experts):
            experts[expert_idx] = feed_forward(take, f"feed_forward.experts.{expert_idx}.", args, numerics)
        gate = Linear(weight, numerics.without_quantisation)
        return MoE(gate, experts, args.n_experts, args.n_experts_per_tok, layer_idx, self.elsewhere, self.experts.heat)
