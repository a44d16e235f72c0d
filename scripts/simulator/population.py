"""Machines as volunteers have them: their memory, speed, links, places and lifetimes, drawn at random.

Sources: memory as in the Steam Hardware Survey of 2024, in round shares; memory bandwidth by the vendors' sheets (dual
channel DDR4 and DDR5: 30 to 90 GB/s; consumer GPUs: 250 to 1000); broadband by the FCC's fixed tiers; round trips with
the median of the King data set (Gummadi et al. 2002: 77 ms), here three continents and a last mile each; lifetimes
Weibull of shape 0.5 (Stutzbach and Rejaie, IMC 2006: 0.34 to 0.59), so most who leave came lately.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch

from node.hosting import layers_that_fit
from node.model import Numerics
from swarm.errors import BadArgument
from swarm.release import ModelArgs

ARGS = ModelArgs(
    architecture="mixtral",
    dim=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    hidden_dim=14336,
    vocab_size=32000,
    norm_eps=1e-5,
    rope_theta=1e6,
    n_experts=8,
    n_experts_per_tok=2,
)
"""8x7B."""

NUMERICS = Numerics(torch.bfloat16, "int8")
LAYER_BYTES = ARGS.n_layer_params * 2
"""As it is fetched; it is packed into int8 here."""

ACTIVE_BYTES = (ARGS.n_trunk_params + ARGS.n_experts_per_tok * ARGS.n_expert_params) * NUMERICS.layer_bytes_per_value
TOKEN_BYTES = ARGS.dim * 2

MEMORY_GB = {8: 0.14, 16: 0.42, 32: 0.34, 64: 0.08, 128: 0.02}
FREE_SHARE = 0.7
GPU_SHARE = 0.2
LIFETIME_SHAPE = 0.5
CONTINENTS = ((0.0, 0.0), (0.045, 0.0), (0.02, 0.05))
"""Where they lie, in seconds of one way."""


@dataclass(frozen=True, slots=True)
class Machine:
    """place: seconds of one way, plus last_mile_s at either end. download: bytes per second."""

    n_layers: int
    layer_time_s: float
    max_tokens_per_s: float
    download: float
    place: tuple[float, float]
    last_mile_s: float

    def rtt_s(self, other: Machine) -> float:
        return 2 * (math.dist(self.place, other.place) + self.last_mile_s + other.last_mile_s)


def draw_machine(draw: random.Random) -> Machine:
    """One that can keep at least one layer: smaller ones would host experts, and are left out here."""
    while True:
        memory_gb = draw.choices(list(MEMORY_GB), list(MEMORY_GB.values()))[0]
        try:
            n_layers = layers_that_fit(ARGS, NUMERICS, int(memory_gb * FREE_SHARE * 1e9 * draw.uniform(0.8, 1.2)))
        except BadArgument:
            continue
        is_gpu = draw.random() < GPU_SHARE
        bandwidth = 1e9 * (draw.uniform(250, 1000) if is_gpu else draw.uniform(30, 90)) * draw.uniform(0.5, 0.9)
        x, y = draw.choice(CONTINENTS)
        place = (x + draw.gauss(0, 0.008), y + draw.gauss(0, 0.008))
        uplink = draw.choice((10e6, 20e6, 40e6, 100e6, 500e6)) / 8
        download = draw.choice((50e6, 100e6, 250e6, 500e6, 1e9)) / 8
        return Machine(
            n_layers, ACTIVE_BYTES / bandwidth, uplink / TOKEN_BYTES, download, place, draw.uniform(0.001, 0.01)
        )


def draw_lifetime_s(draw: random.Random, mean_s: float) -> float:
    """Of a machine that comes now."""
    return draw.weibullvariate(mean_s / math.gamma(1 + 1 / LIFETIME_SHAPE), LIFETIME_SHAPE)


def draw_rest_s(draw: random.Random, mean_s: float) -> float:
    """What is left to one that has been there for long: of a swarm whose churn has settled."""
    scale_s = mean_s / math.gamma(1 + 1 / LIFETIME_SHAPE)
    return draw.random() * scale_s * draw.gammavariate(1 + 1 / LIFETIME_SHAPE, 1.0) ** (1 / LIFETIME_SHAPE)
