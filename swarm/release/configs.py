"""The two config files, config.json (HF) and params.json (Mistral's own), as ModelArgs.

What a config says beyond what we compute (scaled rotary positions, quantisation, biases, vision, latent attention) is
refused: a model that runs with a part of it ignored answers wrongly and nobody is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release.args import ModelArgs
from swarm.release.outside import Fields, show

_RUNNABLE = (
    "this version runs Mistral and Mixtral text models: 7B, 8x7B, 8x22B, Codestral 22B, Nemo, Small 24B, Large 2, "
    "Ministral 8B and others of the same shape"
)

# model_type in config.json -> our architecture
_HF_MODEL_TYPES = {"mistral": "mistral", "ministral": "mistral", "mixtral": "mixtral"}
_HF_CLASSES = {"MistralForCausalLM": "mistral", "MinistralForCausalLM": "mistral", "MixtralForCausalLM": "mixtral"}
_HF_REFUSED = {
    "quantization_config": "quantised weights",
    "compression_config": "compressed weights",
    "vision_config": "a vision encoder",
    "text_config": "a multimodal model",
    "attention_bias": "attention biases",
    "mlp_bias": "feed-forward biases",
    "n_shared_experts": "shared experts",
    "kv_lora_rank": "latent attention",
}
_PARAMS_REFUSED = {
    "quantization": "quantised weights",
    "yarn": "YaRN-scaled rotary positions",
    "rope_scaling": "scaled rotary positions",
    "llama_4_scaling": "scaled queries",
    "vision_encoder": "a vision encoder",
    "multimodal": "a multimodal model",
    "audio_encoder": "an audio encoder",
    "q_lora_rank": "latent attention",
    "kv_lora_rank": "latent attention",
    "use_biases": "biases",
    "lora": "an unmerged adapter",
}
_STORED_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

UNSTATED_MAX_POSITIONS = 32768
"""params.json states no context length for the 7B and 8x7B releases; their config.json says 32768."""


def args_from_config(config: Mapping[str, Any], what: str = "config.json") -> ModelArgs:
    """ModelArgs from HF's config.json, written by transformers 4 or 5.

    An absent sliding_window means none: MistralConfig's default of 4096 is true of 7B v0.1 only, which states it.
    Raises: UnsupportedArchitecture naming what we do not compute; CorruptRelease.
    """
    fields = Fields(config, what)
    architecture = _hf_architecture(fields)
    _refuse(fields, _HF_REFUSED)
    if fields.values.get("hidden_act", "silu") != "silu":
        raise _unsupported(f"{what}: the activation {show(fields.values['hidden_act'])}")
    n_layers = fields.positive_int("num_hidden_layers")
    dim = fields.positive_int("hidden_size")
    n_heads = fields.positive_int("num_attention_heads")
    if not fields.has("head_dim") and dim % n_heads:
        raise fields.wrong("head_dim", f"stated, and {dim} does not divide into {n_heads} heads")
    is_moe = architecture == "mixtral"
    return ModelArgs(
        architecture=architecture,
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=fields.positive_int("num_key_value_heads"),
        head_dim=fields.positive_int("head_dim", dim // n_heads),
        hidden_dim=fields.positive_int("intermediate_size"),
        vocab_size=fields.positive_int("vocab_size"),
        norm_eps=fields.positive_float("rms_norm_eps"),
        rope_theta=_hf_rope_theta(fields, 1e6 if is_moe else 1e4),
        n_experts=fields.positive_int("num_local_experts") if is_moe else 0,
        n_experts_per_tok=fields.positive_int("num_experts_per_tok") if is_moe else 0,
        tied_embeddings=fields.boolean("tie_word_embeddings", False),
        windows=_hf_windows(fields, _checked_n_layers(fields, n_layers)),
        max_positions=fields.positive_int("max_position_embeddings"),
        rope_layout="halves",
        stored_dtype=_hf_stored_dtype(fields),
    )


def args_from_params(params: Mapping[str, Any], what: str = "params.json") -> ModelArgs:
    """ModelArgs from Mistral's own params.json.

    rope_theta, where unstated, is 1e4 with a sliding window and 1e6 without (mistral-inference's rule). The context
    length is `max_position_embeddings` or `max_seq_len` where stated, else UNSTATED_MAX_POSITIONS. stored_dtype is a
    guess (bf16) until the weights' headers are read.
    Raises: UnsupportedArchitecture naming what we do not compute; CorruptRelease.
    """
    fields = Fields(params, what)
    model_type = params.get("model_type", "transformer")
    if model_type != "transformer":
        raise _unsupported(f"{what}: the model type {show(model_type)}")
    _refuse(fields, _PARAMS_REFUSED)
    n_layers = fields.positive_int("n_layers")
    windows = _params_windows(fields, _checked_n_layers(fields, n_layers))
    n_experts = n_experts_per_tok = 0
    if fields.has("moe"):
        moe = fields.object("moe")
        _refuse(moe, {"num_shared_experts": "shared experts", "first_k_dense_replace": "dense layers among experts"})
        n_experts = moe.positive_int("num_experts")
        n_experts_per_tok = moe.positive_int("num_experts_per_tok")
    position_key = "max_position_embeddings" if fields.has("max_position_embeddings") else "max_seq_len"
    return ModelArgs(
        architecture="mixtral" if n_experts else "mistral",
        dim=fields.positive_int("dim"),
        n_layers=n_layers,
        n_heads=fields.positive_int("n_heads"),
        n_kv_heads=fields.positive_int("n_kv_heads"),
        head_dim=fields.positive_int("head_dim"),
        hidden_dim=fields.positive_int("hidden_dim"),
        vocab_size=fields.positive_int("vocab_size"),
        norm_eps=fields.positive_float("norm_eps"),
        rope_theta=fields.positive_float("rope_theta", 1e4 if any(windows) else 1e6),
        n_experts=n_experts,
        n_experts_per_tok=n_experts_per_tok,
        tied_embeddings=fields.boolean("tied_embeddings", False),
        windows=windows,
        max_positions=fields.positive_int(position_key, UNSTATED_MAX_POSITIONS),
        rope_layout="interleaved",
    )


def _unsupported(what: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(f"{what} is not supported: {_RUNNABLE}")


def _refuse(fields: Fields, refused: Mapping[str, str]) -> None:
    for key, meaning in refused.items():
        if fields.values.get(key):
            raise UnsupportedArchitecture(
                f"{fields.what} asks for {meaning} ({key!r}), which is not supported: {_RUNNABLE}"
            )


def _hf_architecture(fields: Fields) -> str:
    """From `architectures`, which names the class that computes the model, or else from `model_type`."""
    classes = fields.values.get("architectures")
    if classes is not None:
        if not isinstance(classes, list) or len(classes) != 1:
            raise fields.wrong("architectures", "a list of one class name")
        named, known = classes[0], _HF_CLASSES
    else:
        named, known = fields.values.get("model_type"), _HF_MODEL_TYPES
        if named is None:
            raise fields.wrong("model_type", "the model's architecture")
    if not isinstance(named, str) or named not in known:
        raise _unsupported(f"{fields.what}: the architecture {show(named)}")
    model_type = fields.values.get("model_type", named)
    if not isinstance(model_type, str) or (_HF_MODEL_TYPES | _HF_CLASSES).get(model_type) != known[named]:
        raise fields.wrong("model_type", f"one that goes with {named}")
    return known[named]


def _hf_rope_theta(fields: Fields, default: float) -> float:
    """rope_theta stands at the top in transformers 4 and within rope_parameters in 5."""
    for key in ("rope_scaling", "rope_parameters"):
        if not fields.has(key):
            continue
        rope = fields.object(key)
        kind = rope.values.get("rope_type", rope.values.get("type", "default"))
        if kind != "default":
            raise _unsupported(f"{fields.what}: {show(kind)} scaling of rotary positions")
        if rope.has("partial_rotary_factor") and rope.positive_float("partial_rotary_factor") != 1.0:
            raise _unsupported(f"{fields.what}: partial rotary positions")
        if rope.has("rope_theta"):
            return rope.positive_float("rope_theta")
    return fields.positive_float("rope_theta", default)


def _hf_stored_dtype(fields: Fields) -> str:
    key = "dtype" if fields.has("dtype") else "torch_dtype"
    name = fields.values.get(key)
    if name is None:
        return "bf16"
    if not isinstance(name, str):
        raise fields.wrong(key, "the name of a dtype")
    dtype = _STORED_DTYPES.get(name.removeprefix("torch."))
    if dtype is None:
        raise _unsupported(f"{fields.what}: weights stored as {show(name)}")
    return dtype


def _checked_n_layers(fields: Fields, n_layers: int) -> int:
    if n_layers > 1024:  # before a tuple of that length is built
        raise CorruptRelease(f"{fields.what} declares {n_layers} layers, and 1024 is the most that we believe")
    return n_layers


def _hf_windows(fields: Fields, n_layers: int) -> tuple[int | None, ...]:
    window = fields.positive_int("sliding_window") if fields.has("sliding_window") else None
    types = fields.values.get("layer_types")
    if types is None:
        return (window,) * n_layers
    if not isinstance(types, list) or len(types) != n_layers:
        raise fields.wrong("layer_types", f"a list of {n_layers} names")
    windows: list[int | None] = []
    for name in types:
        if name == "full_attention":
            windows.append(None)
        elif name == "sliding_attention" and window is not None:
            windows.append(window)
        else:
            raise fields.wrong("layer_types", "'full_attention' and, where sliding_window is set, 'sliding_attention'")
    return tuple(windows)


def _params_windows(fields: Fields, n_layers: int) -> tuple[int | None, ...]:
    """sliding_window (or _sliding_window): one for all layers, or a list that repeats over them."""
    key = "sliding_window" if fields.has("sliding_window") else "_sliding_window"
    if not isinstance(fields.values.get(key), list):
        return (fields.positive_int(key) if fields.has(key) else None,) * n_layers
    pattern = fields.values[key]
    if not 1 <= len(pattern) <= n_layers or n_layers % len(pattern):
        raise fields.wrong(key, f"a window or a list of windows that repeats over {n_layers} layers")
    windows = tuple(None if w is None else Fields({key: w}, fields.what).positive_int(key) for w in pattern)
    return windows * (n_layers // len(pattern))
