"""Both config files of every model of the family that we run, and the refusal of those that we do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from swarm.errors import CorruptRelease, ReleaseError, UnsupportedArchitecture
from swarm.release import ModelArgs, args_from_config, args_from_params


@dataclass(frozen=True)
class Model:
    name: str
    dim: int
    n_layers: int
    n_heads: int
    hidden_dim: int
    vocab_size: int
    rope_theta: float
    max_positions: int
    n_params: int
    n_active_params: int = 0
    n_experts: int = 0
    head_dim: int = 128
    states_rope_theta: bool = True
    window: Any = None  # as in params.json
    windows: tuple[int | None, ...] = ()

    def config(self) -> dict[str, Any]:
        """As on the hub: transformers 4 wrote them."""
        kind = "mixtral" if self.n_experts else "ministral" if isinstance(self.window, list) else "mistral"
        config: dict[str, Any] = {
            "architectures": [f"{kind.capitalize()}ForCausalLM"],
            "model_type": kind,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": self.dim,
            "initializer_range": 0.02,
            "intermediate_size": self.hidden_dim,
            "max_position_embeddings": self.max_positions,
            "num_attention_heads": self.n_heads,
            "num_hidden_layers": self.n_layers,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": self.rope_theta,
            "sliding_window": max(w for w in self.window if w) if isinstance(self.window, list) else self.window,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocab_size,
        }
        if self.n_experts:
            config |= {"num_local_experts": self.n_experts, "num_experts_per_tok": 2, "output_router_logits": False}
        if self.dim != self.n_heads * self.head_dim:
            config["head_dim"] = self.head_dim
        if isinstance(self.window, list):
            config["layer_types"] = ["sliding_attention" if w else "full_attention" for w in self.windows]
        return config

    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = {
            "dim": self.dim,
            "n_layers": self.n_layers,
            "head_dim": self.head_dim,
            "hidden_dim": self.hidden_dim,
            "n_heads": self.n_heads,
            "n_kv_heads": 8,
            "norm_eps": 1e-05,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_positions,
        }
        if self.states_rope_theta:
            params["rope_theta"] = self.rope_theta
        if self.window is not None:
            params["sliding_window"] = self.window
        if self.n_experts:
            params["moe"] = {"num_experts_per_tok": 2, "num_experts": self.n_experts}
        return params


MODELS = (
    Model("7B v0.1", 4096, 32, 32, 14336, 32000, 1e4, 32768, 7_241_732_096, window=4096, states_rope_theta=False),
    Model("7B v0.2", 4096, 32, 32, 14336, 32000, 1e6, 32768, 7_241_732_096),
    Model("7B v0.3", 4096, 32, 32, 14336, 32768, 1e6, 32768, 7_248_023_552),
    Model(
        "Mixtral 8x7B",
        4096,
        32,
        32,
        14336,
        32000,
        1e6,
        32768,
        46_702_792_704,
        12_879_925_248,
        8,
        states_rope_theta=False,
    ),
    Model("Mixtral 8x22B v0.1", 6144, 56, 48, 16384, 32000, 1e6, 65536, 140_620_634_112, 39_152_031_744, 8),
    Model("Mixtral 8x22B v0.3", 6144, 56, 48, 16384, 32768, 1e6, 65536, 140_630_071_296, 39_161_468_928, 8),
    Model("Codestral 22B", 6144, 56, 48, 16384, 32768, 1e6, 32768, 22_247_282_688),
    Model("Large 2", 12288, 88, 96, 28672, 32768, 1e6, 131072, 122_610_069_504),
    Model("Nemo", 5120, 40, 32, 14336, 131072, 1e6, 131072, 12_247_782_400),
    Model("Small 24B", 5120, 40, 32, 32768, 131072, 1e8, 32768, 23_572_403_200),
    Model(
        "Ministral 8B",
        4096,
        36,
        32,
        12288,
        131072,
        1e8,
        131072,
        8_019_808_256,
        window=[None, 32768, 32768, 32768],
        windows=(None, 32768, 32768, 32768) * 9,
    ),
)
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def check(args: ModelArgs, model: Model, rope_layout: str) -> None:
    assert args.n_params == model.n_params
    assert args.n_active_params == (model.n_active_params or model.n_params)
    window = model.window if isinstance(model.window, int) else None
    assert args == ModelArgs(
        architecture="mixtral" if model.n_experts else "mistral",
        dim=model.dim,
        n_layers=model.n_layers,
        n_heads=model.n_heads,
        n_kv_heads=8,
        head_dim=model.head_dim,
        hidden_dim=model.hidden_dim,
        vocab_size=model.vocab_size,
        norm_eps=1e-5,
        rope_theta=model.rope_theta,
        n_experts=model.n_experts,
        n_experts_per_tok=2 if model.n_experts else 0,
        windows=model.windows or (window,) * model.n_layers,
        max_positions=model.max_positions,
        rope_layout=rope_layout,
    )


@each_model
def test_config_json(model: Model) -> None:
    check(args_from_config(model.config()), model, "halves")


@each_model
def test_config_json_of_transformers_5(model: Model) -> None:
    config = model.config()
    theta = config.pop("rope_theta")
    config |= {
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "dtype": config.pop("torch_dtype"),
        "head_dim": config.get("head_dim"),
    }
    check(args_from_config(config), model, "halves")


@each_model
def test_params_json(model: Model) -> None:
    check(args_from_params(model.params()), model, "interleaved")


def test_the_published_counts_that_facts_round() -> None:
    rounded = {"Mixtral 8x22B v0.1": (140.62, 39.15), "Ministral 8B": (8.02, 8.02), "Small 24B": (23.57, 23.57)}
    for model in MODELS:
        if model.name in rounded:
            args = args_from_config(model.config())
            assert (round(args.n_params / 1e9, 2), round(args.n_active_params / 1e9, 2)) == rounded[model.name]


def test_the_mixtral_torrents_params_json() -> None:
    args = args_from_params(
        {
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
    )
    assert (args.architecture, args.rope_theta, args.max_positions) == ("mixtral", 1e6, 32768)
    assert args.n_params * 2 == 93_405_585_408
    assert args.n_expert_params * 2 == 352_321_536


def test_unstated_theta_follows_the_window(tiny_params: dict[str, Any]) -> None:
    assert args_from_params(tiny_params).rope_theta == 1e6
    assert args_from_params(tiny_params | {"sliding_window": 8}).rope_theta == 1e4
    assert args_from_params(tiny_params | {"_sliding_window": [None, 8, 8]}).windows == (None, 8, 8)


def test_a_tied_model_counts_its_embeddings_once(tiny_config: dict[str, Any]) -> None:
    untied = args_from_config(tiny_config)
    tied = args_from_config(tiny_config | {"tie_word_embeddings": True})
    assert untied.n_params - tied.n_params == 40 * 16
    assert tied.tied_embeddings


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "LlamaForCausalLM"),
        ({"architectures": ["Mistral3ForConditionalGeneration"]}, "Mistral3"),
        ({"architectures": None, "model_type": "qwen3"}, "qwen3"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "linear"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"torch_dtype": "float8_e4m3fn"}, "float8"),
        ({"vision_config": {"a": 1}}, "vision"),
    ],
)
def test_hf_models_that_we_do_not_run(tiny_config: dict[str, Any], change: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=word) as caught:
        args_from_config(tiny_config | change)
    assert "Nemo" in str(caught.value)  # names those that we run


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"yarn": {"factor": 16}}, "YaRN"),
        ({"quantization": {"qformat_weight": "fp8"}}, "quantised"),
        ({"vision_encoder": {"hidden_size": 1024}}, "vision"),
        ({"q_lora_rank": 1024}, "latent"),
        ({"moe": {"num_experts": 128, "num_experts_per_tok": 4, "num_shared_experts": 1}}, "shared"),
    ],
)
def test_original_models_that_we_do_not_run(tiny_params: dict[str, Any], change: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=word) as caught:
        args_from_params(tiny_params | change)
    assert "Nemo" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": -1},
        {"hidden_size": "16"},
        {"hidden_size": 16.0},
        {"hidden_size": True},
        {"hidden_size": 10**30},
        {"num_hidden_layers": 10**6},
        {"num_key_value_heads": 3},
        {"head_dim": 7},
        {"num_experts_per_tok": 5},
        {"num_experts_per_tok": 0},
        {"num_local_experts": None},
        {"num_local_experts": 10**5},
        {"rms_norm_eps": 0},
        {"rms_norm_eps": float("nan")},
        {"rope_theta": float("inf")},
        {"rope_theta": "1e6"},
        {"sliding_window": 0},
        {"sliding_window": [4, 4, 4]},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["sliding_attention"] * 3},
        {"tie_word_embeddings": 1},
        {"torch_dtype": 16},
        {"architectures": []},
        {"architectures": ["MistralForCausalLM"]},
        {"architectures": None, "model_type": None},
        {"rope_parameters": 5},
    ],
    ids=str,
)
def test_contradictions_in_config_json(tiny_config: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(CorruptRelease):
        args_from_config(tiny_config | change)


@pytest.mark.parametrize("key", [key for key in MODELS[3].config() if key.startswith(("num_", "hidden_s", "rms"))])
def test_config_json_lacks_a_key(key: str) -> None:
    config = MODELS[3].config()
    del config[key]
    with pytest.raises(CorruptRelease, match=key):
        args_from_config(config)


@pytest.mark.parametrize(
    "key", [key for key in MODELS[1].params() if key not in ("rope_theta", "max_position_embeddings")]
)
def test_params_json_lacks_a_key(key: str) -> None:
    params = MODELS[1].params()
    del params[key]
    with pytest.raises(CorruptRelease, match=key):
        args_from_params(params)


@pytest.mark.parametrize(
    "change",
    [{"sliding_window": [8, 8]}, {"sliding_window": []}, {"sliding_window": [0, 0, 0]}, {"moe": []}, {"moe": {}}],
)
def test_contradictions_in_params_json(tiny_params: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(CorruptRelease):
        args_from_params(tiny_params | change)


def test_a_head_dim_that_does_not_divide_must_be_stated(tiny_config: dict[str, Any]) -> None:
    del tiny_config["head_dim"]
    assert args_from_config(tiny_config).head_dim == 4
    with pytest.raises(CorruptRelease, match="head_dim"):
        args_from_config(tiny_config | {"num_attention_heads": 6})


def test_messages_show_foreign_text_escaped_and_short(tiny_config: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError) as caught:
        args_from_config(tiny_config | {"architectures": ["\x1b[2J" + "x" * 10_000]})
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600
