"""Messages and tools as clients send them -> as the templates take them. Text only; knows no template.

Clients of both dialects send keys that no template has a place for (refusal, annotations, cache_control): they are
dropped here. What carries meaning and cannot be kept, such as an image, is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from swarm.gateway.bodies import shown
from swarm.gateway.faults import BadField

SAFE_PROMPT = (
    "Always assist with care, respect, and truth. Respond with utmost utility yet securely. Avoid harmful, unethical, "
    "prejudiced, or negative content. Ensure replies promote fairness and positivity."
)
"""What safe_prompt puts first. Source: Mistral's documentation, guardrailing."""

TOOL_CALL_ID_CHARS = 9
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Loc = tuple[str | int, ...]


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """Raises: BadField, naming the message."""
    if not isinstance(messages, list) or not messages:
        raise BadField(("messages",), f"messages is {shown(messages)}; it must be a list of at least one message")
    return [_plain_message(message, ("messages", i)) for i, message in enumerate(messages)]


def with_safe_prompt(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same under a system prompt that asks for care, before the request's own."""
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": SAFE_PROMPT}, *messages]
    content = messages[0]["content"]
    chunks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not all(chunk["type"] == "text" for chunk in chunks):
        return [{"role": "system", "content": [{"type": "text", "text": SAFE_PROMPT}, *chunks]}, *messages[1:]]
    texts = [chunk["text"] for chunk in chunks]
    return [{"role": "system", "content": "\n\n".join((SAFE_PROMPT, *texts))}, *messages[1:]]


def plain_tools(tools: list[Any] | None) -> tuple[dict[str, Any], ...]:
    """Raises: BadField, naming the tool."""
    plain = tuple(_plain_tool(tool, ("tools", i)) for i, tool in enumerate(tools or []))
    names = [tool["function"]["name"] for tool in plain]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadField(("tools", i, "function", "name"), f"two tools are named {name}; rename one")
    return plain


def tool_call_id(given: str) -> str:
    """An id of the length that Mistral's templates insist on: the given one, or a short name for a longer one."""
    if re.fullmatch(rf"[a-zA-Z0-9]{{{TOOL_CALL_ID_CHARS}}}", given):
        return given
    number = int.from_bytes(hashlib.sha256(given.encode(errors="replace")).digest()[:8], "big")
    return "".join(_DIGITS[number // len(_DIGITS) ** i % len(_DIGITS)] for i in range(TOOL_CALL_ID_CHARS))


def _plain_message(message: Any, loc: Loc) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise BadField(loc, f'a message is {shown(message)}; it must look like {{"role": "user", "content": "…"}}')
    role = message.get("role")
    match role:
        case "system" | "developer":
            return {"role": "system", "content": _content(message, loc)}
        case "user":
            return {"role": "user", "content": _content(message, loc)}
        case "assistant":
            return _assistant(message, loc)
        case "tool":
            plain = {"role": "tool", "content": _content(message, loc)}
            given = message.get("tool_call_id")
            if isinstance(given, str):
                plain["tool_call_id"] = tool_call_id(given)
            if isinstance(message.get("name"), str):
                plain["name"] = message["name"]
            return plain
        case _:
            raise BadField((*loc, "role"), f"a message's role is {shown(role)}; use system, user, assistant or tool")


def _assistant(message: dict[str, Any], loc: Loc) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": "assistant"}
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise BadField((*loc, "tool_calls"), f"tool_calls is {shown(calls)}; it must be a list", "list_type")
    if calls:
        plain["tool_calls"] = [_plain_call(call, (*loc, "tool_calls", i)) for i, call in enumerate(calls)]
    if message.get("content") not in (None, "", []) or not calls:
        plain["content"] = _content(message, loc)
    prefix = message.get("prefix")
    if prefix is not None and not isinstance(prefix, bool):
        raise BadField((*loc, "prefix"), f"prefix is {shown(prefix)}; it must be true or false", "bool_type")
    return plain | ({"prefix": True} if prefix else {})


def _content(message: dict[str, Any], loc: Loc) -> str | list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if message.get("role") == "assistant":
            return ""
        raise BadField((*loc, "content"), "a message has no content; give it a text", "missing")
    if not isinstance(content, list):
        raise BadField((*loc, "content"), f"content is {shown(content)}; it must be a text", "string_type")
    chunks = []
    for i, chunk in enumerate(content):
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        if kind not in ("text", "thinking"):
            message_text = f"a message has content of type {shown(kind)}; the models here read text only"
            raise BadField((*loc, "content", i, "type"), message_text, "unsupported_value")
        if not isinstance(chunk.get(kind), str if kind == "text" else str | list):
            raise BadField((*loc, "content", i, kind), f"this content has no {kind}", "missing")
        chunks.append({"type": kind, kind: chunk[kind]})
    return chunks


def _plain_call(call: Any, loc: Loc) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadField(loc, "a tool call has no function with a name", "missing")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    given = call.get("id")
    return {
        "id": tool_call_id(given if isinstance(given, str) else ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments or "{}"},
    }


def _plain_tool(tool: Any, loc: Loc) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        raise BadField(loc, f"a tool is {shown(tool)}; only tools of type function can be called here")
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        what = "a tool needs a function with a name of 1 to 64 letters, digits, _ and -"
        raise BadField((*loc, "function", "name"), what)
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise BadField((*loc, "function", "parameters"), "a function's parameters must be a JSON schema", "dict_type")
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise BadField((*loc, "function", "description"), "a function's description must be a text", "string_type")
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
