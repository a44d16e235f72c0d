"""A stage whose layers change while it serves."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from node.hosting import load_part, regroup
from node.model import Numerics, SpanModel
from node.stage import Stage, StageConfig
from swarm.errors import RemoteProtocolError
from swarm.messages import Step, TopLogits
from swarm.release import read_folder_layout
from swarm.terms import NodeId, SessionId, Span

CPU = torch.device("cpu")
CLIENT, SESSION = NodeId("c" * 52), SessionId("aa" * 16)
IDS = tuple(range(5, 25))


@pytest.fixture
def stage(release: Callable[..., Path]) -> Iterator[Stage]:
    """All six layers of tiny-mixtral in one span."""
    folder = release("tiny-mixtral")
    layout = read_folder_layout(folder)
    models = {Span(0, 6): SpanModel(layout.args, Span(0, 6), Numerics(torch.float32))}
    for part in ("embeddings", *range(6), "head"):
        load_part(part, layout, models, folder)
    stage = Stage(layout.args, models, StageConfig(), CPU)
    del models  # only the stage holds them
    yield stage
    stage.shut_down()


async def test_sessions_go_on_on_layers_that_were_left_and_new_ones_have_the_new(stage: Stage) -> None:
    running = stage.open((CLIENT, SESSION, 0), 0, Span(0, 6), 100, 5)
    alone = stage.open((CLIENT, SESSION, 1), 0, Span(0, 6), 100, 5)
    expected = (await stage.step(alone, Step(0, 0, IDS, n_logit_rows=1))).payload
    stage.close(alone)
    stage.replace_models(regroup(stage.models, [Span(0, 2), Span(4, 6)]))
    assert stage.spans == (Span(0, 2), Span(4, 6))
    assert stage.sessions_beyond() == [running]
    payload = (await stage.step(running, Step(0, 0, IDS, n_logit_rows=1))).payload
    assert isinstance(payload, tuple) and isinstance(payload[0], TopLogits) and payload == expected
    with pytest.raises(RemoteProtocolError, match="not hosted here; this node hosts 0:2, 4:6"):
        stage.open((CLIENT, SESSION, 2), 0, Span(0, 6), 100, 5)
    stage.close(running)
    stage.close(stage.open((CLIENT, SESSION, 3), 0, Span(4, 6), 100, 5))
    assert stage.sessions_beyond() == []


async def test_the_weights_of_what_was_left_are_held_by_nothing(stage: Stage) -> None:
    session = stage.open((CLIENT, SESSION, 0), 0, Span(0, 6), 100, 5)
    await stage.step(session, Step(0, 0, IDS, n_logit_rows=1))
    await stage.step(session, Step(0, len(IDS), (7,), n_logit_rows=1))
    stage.close(session)
    left = weakref.ref(session.model)
    stage.replace_models(regroup(stage.models, [Span(0, 2)]))
    del session
    deadline_s = time.monotonic() + 10
    while left() is not None and time.monotonic() < deadline_s:
        gc.collect()
        await asyncio.sleep(0.01)
    assert left() is None


async def test_layers_that_come_back_join_their_neighbours(stage: Stage) -> None:
    whole = stage.models
    stage.replace_models(regroup(whole, [Span(0, 3)]))
    stage.replace_models(regroup([*stage.models, *whole], [Span(0, 6)]))
    session = stage.open((CLIENT, SESSION, 0), 0, Span(0, 6), 100, 5)
    assert (await stage.step(session, Step(0, 0, IDS, n_logit_rows=1))).position == len(IDS)
