"""The Mixtral that is trained: parameters, forward pass and loss in plain torch, for many short documents at a time.

The same function as node/model's SpanModel over all layers (a test compares them), written for gradients: experts see
sorted rows, attention runs over groups of documents of like length, and the head only where something is learned.
Rotary positions are laid out in halves, as HF's weights have them. Knows nothing of text or of optimisers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.release import ModelArgs

ROW_TILE = 128
"""Row counts are rounded up to this: oneDNN compiles a kernel for each new shape, and would do little else."""


@dataclass(frozen=True, slots=True)
class Group:
    """Documents of one padded length, which lie one after the other from `start` on in the batch's rows."""

    start: int
    n_documents: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """ids, targets: (T,) int64, the documents of all groups, then padding. A target of -1 is not learned.

    is_real: (T,) bool, False for padding.
    """

    ids: Tensor
    targets: Tensor
    is_real: Tensor
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Losses:
    """cross_entropy: mean over learned tokens, nats. balance: mean over layers, 1.0 when experts share evenly."""

    cross_entropy: Tensor
    balance: Tensor
    router_z: Tensor


def parameter_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """Trained parameters by name; a layer's experts are stacked: w13 is (E, 2, F, D), w1 before w3; w2 is (E, D, F)."""
    kv_dim = args.n_kv_heads * args.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embedding": (args.vocab_size, args.dim)}
    for n in range(args.n_layers):
        shapes |= {
            f"{n}.attention_norm": (args.dim,),
            f"{n}.wq": (args.n_heads * args.head_dim, args.dim),
            f"{n}.wk": (kv_dim, args.dim),
            f"{n}.wv": (kv_dim, args.dim),
            f"{n}.wo": (args.dim, args.n_heads * args.head_dim),
            f"{n}.ffn_norm": (args.dim,),
            f"{n}.gate": (args.n_experts, args.dim),
            f"{n}.w13": (args.n_experts, 2, args.hidden_dim, args.dim),
            f"{n}.w2": (args.n_experts, args.dim, args.hidden_dim),
        }
    return shapes | {"norm": (args.dim,), "output": (args.vocab_size, args.dim)}


def initialise(args: ModelArgs, parameters: Mapping[str, Tensor], seed: int) -> None:
    """Fills the parameters in place: scaled normals, and layers that begin by adding little."""
    for name, parameter in parameters.items():
        generator = torch.Generator().manual_seed(hash_of(seed, name))
        if name.endswith("norm"):
            parameter.fill_(1.0)
            continue
        std = 0.02 if name in ("embedding", "output") or name.endswith("gate") else parameter.shape[-1] ** -0.5
        if name.endswith((".wo", ".w2")):
            std /= math.sqrt(2 * args.n_layers)
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def hash_of(seed: int, name: str) -> int:
    """A generator's seed for one named thing; stable over processes."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest())


def losses(args: ModelArgs, parameters: Mapping[str, Tensor], batch: Batch) -> Losses:
    """The forward pass. Under autocast its products run in bf16; norms, router and softmax in fp32."""
    rotation = _rotation(args, max(group.length for group in batch.groups))
    h = F.embedding(batch.ids, parameters["embedding"])
    balances, zs = [], []
    for n in range(args.n_layers):
        layer = {name: parameters[f"{n}.{name}"] for name in _IN_LAYER}
        h = h + _attention(args, layer, _norm(args, h, layer["attention_norm"]), batch, rotation)
        out, balance, z = _experts(args, layer, _norm(args, h, layer["ffn_norm"]), batch.is_real)
        h = h + out
        balances.append(balance)
        zs.append(z)
    learned = (batch.targets >= 0).nonzero().squeeze(1)
    n_learned = learned.numel()
    rows = F.pad(learned, (0, -n_learned % ROW_TILE))
    logits = F.linear(_norm(args, h.index_select(0, rows), parameters["norm"]), parameters["output"])
    cross_entropy = F.cross_entropy(logits[:n_learned].float(), batch.targets[learned])
    return Losses(cross_entropy, torch.stack(balances).mean(), torch.stack(zs).mean())


_IN_LAYER = ("attention_norm", "wq", "wk", "wv", "wo", "ffn_norm", "gate", "w13", "w2")


def _norm(args: ModelArgs, x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (args.dim,), weight, args.norm_eps)


def _rotation(args: ModelArgs, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each (length, head_dim / 2)."""
    frequencies = args.rope_theta ** (-torch.arange(0, args.head_dim, 2) / args.head_dim)
    angles = torch.arange(length)[:, None] * frequencies
    return angles.cos(), angles.sin()


def _attention(
    args: ModelArgs, layer: Mapping[str, Tensor], x: Tensor, batch: Batch, rotation: tuple[Tensor, Tensor]
) -> Tensor:
    """x: (T, D) -> (T, D); each document attends to itself, causally."""
    weight = torch.cat([layer["wq"], layer["wk"], layer["wv"]])
    qkv = F.linear(x, weight)
    mixed = []
    for group in batch.groups:
        end = group.start + group.n_documents * group.length
        heads = qkv[group.start : end].view(group.n_documents, group.length, -1, args.head_dim).transpose(1, 2)
        xq, xk, xv = heads.float().split([args.n_heads, args.n_kv_heads, args.n_kv_heads], dim=1)  # (B, H, L, hd)
        cos, sin = (table[: group.length] for table in rotation)
        out = _attend(_rotate(xq, cos, sin), _rotate(xk, cos, sin), xv)
        mixed.append(out.transpose(1, 2).reshape(group.n_documents * group.length, -1))
    n_padding = x.shape[0] - sum(rows.shape[0] for rows in mixed)
    if n_padding:
        mixed.append(qkv.new_zeros(n_padding, args.n_heads * args.head_dim))
    return F.linear(torch.cat(mixed), layer["wo"])


def _attend(xq: Tensor, xk: Tensor, xv: Tensor) -> Tensor:
    """(B, H, L, hd), (B, KVH, L, hd) twice -> (B, H, L, hd), causal, in fp32.

    By plain products: for so short rows, the backward pass of the fused kernel takes ten times as long.
    """
    n, n_heads, length, head_dim = xq.shape
    with torch.autocast("cpu", enabled=False):
        grouped = xq.reshape(n, xk.shape[1], -1, head_dim)  # (B, KVH, H / KVH * L, hd)
        scores = (grouped * head_dim**-0.5) @ xk.transpose(2, 3)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.view(n, n_heads, length, length).masked_fill(future, float("-inf"))
        return (scores.softmax(-1).view(n, xk.shape[1], -1, length) @ xv).view(n, n_heads, length, head_dim)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def _experts(args: ModelArgs, layer: Mapping[str, Tensor], x: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x: (T, D) fp32 -> (T, D), the balance loss and the router's z-loss of this layer."""
    k, n_experts = args.n_experts_per_tok, args.n_experts
    with torch.autocast("cpu", enabled=False):
        router_logits = F.linear(x, layer["gate"])  # (T, E)
    top_logits, top_ids = router_logits.topk(k, dim=-1)
    weights = top_logits.softmax(dim=-1)
    real_logits, real_ids = router_logits[is_real], top_ids[is_real]
    share = F.one_hot(real_ids, n_experts).sum(1).float().mean(0) / k  # of all choices, per expert
    balance = n_experts * (share * real_logits.softmax(-1).mean(0)).sum()
    z = real_logits.logsumexp(-1).square().mean()

    flat = top_ids.view(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=n_experts)
    tiles = (counts + ROW_TILE - 1) // ROW_TILE * ROW_TILE
    # Each expert's rows begin at a tile; what is between is row 0 with weight 0.
    slots = torch.arange(flat.numel()) + ((tiles.cumsum(0) - tiles) - (counts.cumsum(0) - counts)).repeat_interleave(
        counts
    )
    n_slots = int(tiles.sum())
    source = torch.zeros(n_slots, dtype=torch.long).scatter_(0, slots, order // k)
    scale = torch.zeros(n_slots).index_put((slots,), weights.view(-1)[order])
    outs = []
    # To autocast's dtype here, once, and not after rows were gathered twice.
    gathered_from = x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x
    for expert_idx, rows in enumerate(gathered_from.index_select(0, source).split(tiles.tolist())):
        gate_up = F.linear(rows, layer["w13"][expert_idx].flatten(0, 1))
        gate, up = gate_up.chunk(2, dim=-1)
        outs.append(F.linear(F.silu(gate) * up, layer["w2"][expert_idx]))
    out = torch.zeros_like(x).index_add(0, source, torch.cat(outs).float() * scale.unsqueeze(1))
    return out, balance, z
