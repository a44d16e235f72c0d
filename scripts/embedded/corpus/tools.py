"""Questions that a tool answers: one or two tools are offered, the model calls one, and says what came back."""

import json
import random
from typing import Any

from .documents import ToolChat
from .names import invent
from .spelling import words

CITIES = words(
    """Paris Berlin Madrid Rome London Dublin Lisbon Vienna Athens Oslo Tokyo Cairo Nairobi Ottawa Lima Tidewick
    Inkwell Honeyport Prickle Kitetown Shellhaven Ashford Mittens"""
)
_SKIES = words("rain sun snow fog wind clouds")
_CURRENCIES = words("euros dollars pounds yen francs shells")


def _tool(tool: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": tool, "description": description, "parameters": schema}}


TOOLS = {
    "get_weather": _tool("get_weather", "Weather in a city", city="string"),
    "get_time": _tool("get_time", "Time in a city", city="string"),
    "add": _tool("add", "Add two numbers", a="integer", b="integer"),
    "search_release": _tool("search_release", "Find a release", name="string"),
    "convert": _tool("convert", "Convert money", amount="integer", source="string", target="string"),
}
_NAMES = tuple(TOOLS)
_ASKED = {
    "get_weather": (
        "What is the weather in {city}?",
        "How is the weather in {city}?",
        "Is it cold in {city}?",
        "Tell me the weather in {city}.",
    ),
    "get_time": ("What time is it in {city}?", "Tell me the time in {city}.", "How late is it in {city}?"),
    "add": ("What is {a} plus {b}?", "Add {a} and {b}.", "How much is {a} + {b}?"),
    "search_release": (
        "How many nodes serve {name}?",
        "Find the release {name}.",
        "Is there a release called {name}?",
        "Search for the release {name}.",
    ),
    "convert": (
        "How much are {amount} {source} in {target}?",
        "Convert {amount} {source} to {target}.",
        "Change {amount} {source} into {target}.",
    ),
}


def _city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.6 else invent(rng)


def _draw_call(rng: random.Random, name: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The call's arguments, the tool's result, and the answer made of both."""
    if name == "get_weather":
        city, sky, degrees = _city(rng), rng.choice(_SKIES), int(rng.random() * 35)
        return (
            {"city": city},
            {"sky": sky, "degrees": degrees},
            f"In {city} there is {sky}, and it is {degrees} degrees.",
        )
    if name == "get_time":
        city, clock = _city(rng), f"{int(rng.random() * 24):02}:{int(rng.random() * 60):02}"
        return {"city": city}, {"time": clock}, f"It is {clock} in {city}."
    if name == "add":
        a, b = 100 + int(rng.random() * 900), 100 + int(rng.random() * 900)
        return {"a": a, "b": b}, {"sum": a + b}, f"{a} + {b} = {a + b}."
    if name == "search_release":
        release, nodes = invent(rng), 1 + int(rng.random() * 40)
        served = "1 node serves" if nodes == 1 else f"{nodes} nodes serve"
        return {"name": release}, {"nodes": nodes}, f"{served} {release}."
    source = rng.choice(_CURRENCIES)
    target = rng.choice(tuple(c for c in _CURRENCIES if c != source))
    amount, value = 2 + int(rng.random() * 98), 2 + int(rng.random() * 198)
    arguments = {"amount": amount, "source": source, "target": target}
    return arguments, {"value": value}, f"{amount} {source} are {value} {target}."


def make_tools(rng: random.Random) -> ToolChat:
    """One or two tools, a question for one of them, its call, its result, and the answer."""
    name = rng.choice(_NAMES)
    offered = [name]
    if rng.random() < 0.5:
        other = rng.choice(_NAMES)
        if other != name:
            offered.insert(int(rng.random() * 2), other)
    arguments, result, answer = _draw_call(rng, name)
    question = rng.choice(_ASKED[name]).format(**arguments)
    packed = json.dumps(result, separators=(",", ":"))
    key = f"{name}|{'|'.join(map(str, arguments.values()))}|{packed}"
    return ToolChat("tools", key, tuple(TOOLS[tool] for tool in offered), question, name, arguments, packed, answer)
