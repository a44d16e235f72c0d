"""Which dialect a request speaks, and how each words its refusals."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.errors import (
    BadArgument,
    ContextLengthExceeded,
    DeadlineExceeded,
    KeyRefused,
    LayersUncovered,
    NodeUnreachable,
    StageFull,
    SwarmError,
    TooManyRequests,
)
from swarm.gateway.dialects import MISTRAL, OPENAI, dialect_of_body, dialect_of_head
from swarm.gateway.faults import BadField, fault_of
from swarm.gateway.models import ModelNotOpen, UnknownModel

CHAT = "/v1/chat/completions"
MISTRAL_SDK = (b"user-agent", b"speakeasy-sdk/python 3.7.0 2.935.1 1.0.0 mistralai")
OPENAI_SDK = (b"user-agent", b"AsyncOpenAI/Python 3.54.0")


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/v1/fim/completions", [], MISTRAL),
        ("/v1/fim/completions", [OPENAI_SDK], MISTRAL),
        (CHAT, [MISTRAL_SDK], MISTRAL),
        (CHAT, [(b"user-agent", b"mistral-client-python/0.4.2")], MISTRAL),
        (CHAT, [OPENAI_SDK], OPENAI),
        (CHAT, [(b"x-stainless-lang", b"js")], OPENAI),
        (CHAT, [(b"user-agent", b"curl/8.0")], None),
        (CHAT, [], None),
    ],
)
def test_path_and_sdk_decide_first(path: str, headers: list[tuple[bytes, bytes]], expected: object) -> None:
    assert dialect_of_head(path, headers) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"random_seed": 1}, MISTRAL),
        ({"safe_prompt": False}, MISTRAL),
        ({"messages": [{"role": "assistant", "content": "a", "prefix": True}]}, MISTRAL),
        ({"messages": [{"role": "user", "content": "a"}], "seed": 1}, OPENAI),
        ({"messages": "nonsense"}, OPENAI),
        ({"messages": ["nonsense"]}, OPENAI),
        ({}, OPENAI),
    ],
)
def test_then_the_body_does(body: dict[str, Any], expected: object) -> None:
    assert dialect_of_body(body) is expected


@pytest.mark.parametrize(
    ("error", "status", "retries"),
    [
        (BadArgument("x"), 400, False),
        (BadField(("n",), "x"), 400, False),
        (ContextLengthExceeded("x"), 400, False),
        (KeyRefused("x"), 401, False),
        (UnknownModel("x"), 404, False),
        (TooManyRequests("x", 3.2), 429, True),
        (ModelNotOpen("x"), 503, True),
        (StageFull("x", 2.0), 503, True),
        (LayersUncovered("x", (1,)), 503, True),
        (NodeUnreachable("x"), 503, True),
        (DeadlineExceeded("x"), 504, True),
        (SwarmError("x"), 500, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_its_status_and_says_whether_to_try_again(error: Exception, status: int, retries: bool) -> None:
    fault = fault_of(error)
    assert fault.status == status and fault.message == "x"
    assert ("Retry-After" in fault.headers) is retries


def test_retry_after_is_whole_seconds_and_a_missing_key_says_how_to_show_one() -> None:
    assert fault_of(TooManyRequests("x", 3.2)).headers == {"Retry-After": "4"}
    assert fault_of(KeyRefused("x")).headers == {"WWW-Authenticate": "Bearer"}


def test_a_bug_tells_nothing_of_itself() -> None:
    fault = fault_of(RuntimeError("the secret is 42"))
    assert fault.status == 500 and "42" not in fault.message


def test_the_shapes_of_errors() -> None:
    fault = fault_of(BadField(("messages", 2, "role"), "no such role"))
    assert OPENAI.error(fault) == (
        400,
        {
            "error": {
                "message": "no such role",
                "type": "invalid_request_error",
                "param": "messages.2.role",
                "code": "value_error",
            }
        },
    )
    detail = {"type": "value_error", "loc": ["body", "messages", 2, "role"], "msg": "no such role"}
    assert MISTRAL.error(fault) == (422, {"detail": [detail]})
    status, body = MISTRAL.error(fault_of(TooManyRequests("slow down")))
    assert status == 429
    assert body == {
        "object": "error",
        "message": "slow down",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_unknown_fields_pass_in_one_dialect_only() -> None:
    assert OPENAI.unknown_fields(["mirostat"]) == ("mirostat",)
    with pytest.raises(BadField, match="unknown field mirostat"):
        MISTRAL.unknown_fields(["mirostat"])
    assert MISTRAL.unknown_fields([]) == ()
