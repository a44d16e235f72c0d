"""A thousand random JSON schemas of growing depth, and what random weights answer under each: it parses and validates.

Nothing stands in for anything: a real stage computes the logits, masks them, and the client's sampler draws from what
came back. Every schema here bounds its strings and arrays, so every answer ends within the budget.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from node.model import Numerics, SpanModel
from node.stage import Stage, StageConfig
from node.weights import load_tensors, write_release
from swarm.grammar import Grammar, GrammarCompiler
from swarm.messages import Step
from swarm.release import ModelArgs, read_folder_layout
from swarm.sampling import SamplingParams, sample
from swarm.terms import NodeId, SessionId, Span
from swarm.tokenizer import load_tokenizer

N_SCHEMAS, N_ROUNDS = 1000, 20
MAX_TOKENS = 4000
CPU = torch.device("cpu")
CLIENT = NodeId("c" * 52)

NAMES = ("name", "id", "größe", "tags", "a b", "x-y", "price", 'quo"te', "back\\slash", "日本", "n", "value")
PATTERNS = ("^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "[A-F0-9]{4}", "^(yes|no|maybe)$", "^[^x]{1,3}y?$", "^\\w{1,8}$")
FORMATS = ("date", "uuid", "ipv4", "ipv6", "email", "date-time")


class Schemas:
    """A schema drawn from one seed. depth: how far objects, arrays and choices may nest; breadth shrinks as they do."""

    def __init__(self, seed: int, depth: int) -> None:
        self._rng = random.Random(seed)
        self.whole = self._any(depth)
        if self._rng.random() < 0.2:
            self.whole = {"$defs": {"it": self.whole}, "$ref": "#/$defs/it"}

    def _any(self, depth: int) -> dict[str, Any]:
        leaves = (self._string, self._integer, self._number, self._enum, self._const, self._type, self._types)
        nested = (self._object, self._object, self._array, self._array, self._tuple, self._any_of, self._one_of)
        return self._rng.choice(nested if depth and self._rng.random() < 0.85 else leaves)(depth)

    def _string(self, _: int) -> dict[str, Any]:
        kind = self._rng.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": self._rng.choice(PATTERNS), "maxLength": 12}
        if kind == 1:
            return {"type": "string", "format": self._rng.choice(FORMATS), "maxLength": 40}
        low = self._rng.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + self._rng.randrange(12)}

    def _integer(self, _: int) -> dict[str, Any]:
        low = self._rng.randrange(-1000, 1000)
        schema: dict[str, Any] = {"type": "integer"}
        match self._rng.randrange(5):
            case 0:
                schema |= {"minimum": low, "maximum": low + self._rng.randrange(500)}
            case 1:
                schema |= {"exclusiveMinimum": low, "exclusiveMaximum": low + 2 + self._rng.randrange(50)}
            case 2:
                schema |= {"minimum": 0, "maximum": 10_000, "multipleOf": self._rng.choice((2, 5, 7, 10))}
            case 3:
                schema |= {"minimum": low}
        return schema

    def _number(self, _: int) -> dict[str, Any]:
        low = round(self._rng.uniform(-50, 50), self._rng.randrange(3))
        bounds: dict[str, Any] = {"minimum": low, "maximum": low + self._rng.choice((0.5, 1, 17.25))}
        return {"type": "number", **(bounds if self._rng.random() < 0.7 else {})}

    def _enum(self, _: int) -> dict[str, Any]:
        values = ["red", "grün", 'a"b', "\n", "", 0, 1, -2.5, True, None, [1, "x"], {"k": "v"}]
        return {"enum": self._rng.sample(values, self._rng.randint(1, 5))}

    def _const(self, _: int) -> dict[str, Any]:
        return {"const": self._rng.choice(("on", 7, False, None, ["a", 1], {"deep": [{"er": "ß"}]}))}

    def _type(self, _: int) -> dict[str, Any]:
        return {"type": self._rng.choice(("boolean", "null"))}

    def _types(self, _: int) -> dict[str, Any]:
        return {"type": self._rng.sample(("boolean", "null", "integer", "number"), 2)}

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._rng.sample(NAMES, self._rng.randint(0, 4 if depth < 3 else 2))
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: self._any(depth - 1) for name in names},
            "required": [name for name in names if self._rng.random() < 0.6],
            "additionalProperties": False,
        }
        if self._rng.random() < 0.1:
            schema["required"] = list(names)
        return schema

    def _array(self, depth: int) -> dict[str, Any]:
        low = self._rng.randrange(3)
        return {
            "type": "array",
            "items": self._any(depth - 1),
            "minItems": low,
            "maxItems": low + self._rng.randrange(4 if depth < 3 else 2),
        }

    def _tuple(self, depth: int) -> dict[str, Any]:
        first = [self._any(depth - 1) for _ in range(self._rng.randint(1, 2))]
        return {"type": "array", "prefixItems": first, "items": False, "minItems": self._rng.randint(0, len(first))}

    def _any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self._any(depth - 1) for _ in range(self._rng.randint(1, 3))]}

    def _one_of(self, depth: int) -> dict[str, Any]:
        """Branches that no value is in two of: others are refused, since a grammar cannot keep them apart."""
        return {"oneOf": [self._object(depth), {"type": "boolean"}, self._string(depth)]}


class Speaker:
    """A stage of random weights, and a session on it per answer."""

    def __init__(self, folder: Path, tokenizer: str, vocab_size: int) -> None:
        args = ModelArgs(
            architecture="mistral", dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24,
            vocab_size=vocab_size, norm_eps=1e-5, rope_theta=1e4, max_positions=MAX_TOKENS + 1,
        )  # fmt: skip
        write_release(args, folder, dtype="fp32", tokenizer=tokenizer)
        layout = read_folder_layout(folder)
        model = SpanModel(layout.args, Span(0, 1), Numerics(torch.float32), device=CPU)
        tensors = load_tensors(layout.layer_tensors(0), folder, dtype=torch.float32, device=CPU)
        model.load_layer(0, {name.removeprefix("layers.0."): tensor for name, tensor in tensors.items()})
        model.load_embeddings(
            next(iter(load_tensors(layout.embedding_tensors(), folder, dtype=torch.float32).values()))
        )
        head = load_tensors(layout.head_tensors(), folder, dtype=torch.float32)
        model.load_head(head.pop("norm.weight"), next(iter(head.values())))
        self.stage = Stage(layout.args, {Span(0, 1): model}, StageConfig(), CPU)
        self.tokenizer = load_tokenizer(next(folder.glob("tek*.json"), folder / "tokenizer.model.v3"))
        self.compiler = GrammarCompiler(self.tokenizer, vocab_size)
        self.vocab_size = vocab_size

    async def answer(self, grammar: Grammar, seed: int) -> tuple[str, bool]:
        """(its text, whether it ended by itself)."""
        constraint = self.compiler.compile(grammar)
        params = SamplingParams(temperature=1.0)
        n_top = params.n_top(self.vocab_size)
        session = self.stage.open((CLIENT, SessionId("ab" * 16), 0), seed, Span(0, 1), MAX_TOKENS + 1, n_top)
        ids, token_id = [], self.tokenizer.bos_id
        try:
            while len(ids) < MAX_TOKENS and not constraint.is_finished:
                mask = constraint.mask()
                output = await self.stage.step(session, Step(seed, len(ids), (token_id,), 1, (), mask))
                assert isinstance(output.payload, tuple)
                row = output.payload[0]
                token_id = sample(row, params, len(ids), seed, vocab_size=self.vocab_size, allowed=mask).id
                constraint.take(token_id)
                ids.append(token_id)
        finally:
            self.stage.close(session)
        return self.tokenizer.decode(ids), constraint.is_finished


@pytest.fixture(scope="module", params=[("v3", 32768), ("tekken", 131072)], ids=["sentencepiece", "tekken"])
def speaker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer, vocab_size = request.param
    speaker = Speaker(tmp_path_factory.mktemp("speaker"), tokenizer, vocab_size)
    yield speaker
    speaker.stage.shut_down()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("nth", range(N_ROUNDS // 2))
async def test_whatever_the_weights_the_answer_is_json_that_its_schema_accepts(speaker: Speaker, nth: int) -> None:
    """Half of the schemas for each tokenizer; those of a later round nest deeper."""
    is_tekken = speaker.vocab_size > 2**16
    n_each = N_SCHEMAS // N_ROUNDS
    counts: Counter[str] = Counter()
    for i in range(n_each):
        seed = (2 * nth + is_tekken) * n_each + i + 1
        schema = Schemas(seed, depth=nth // 2 + 1 if i % 5 else 0).whole
        jsonschema.Draft202012Validator.check_schema(schema)
        text, ended = await speaker.answer(Grammar.json_schema(schema), seed)
        about = f"schema {seed}: {json.dumps(schema)}\nanswer: {text!r}"
        assert ended, about
        text.encode()  # no half of a surrogate pair
        value = json.loads(text)
        json.dumps(value).encode()
        checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        assert not list(checker.iter_errors(value)), about
        counts["valid"] += 1
    assert counts["valid"] == n_each
