"""A stage's sessions: admission, positions, epochs, and that sessions do not disturb each other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from node.model import Numerics
from node.stage import Stage, StageConfig, rows_of, tensor_of
from swarm.errors import PositionMismatch, RemoteProtocolError, SessionLost, StageFull, StaleEpoch
from swarm.messages import Rows, Step, TopLogits
from swarm.terms import NodeId, SessionId, Span

CPU = torch.device("cpu")
CLIENT = NodeId("c" * 52)
A, B = SessionId("aa" * 16), SessionId("bb" * 16)
IDS = tuple(int(i) for i in torch.randint(0, 300, (40,), generator=torch.Generator().manual_seed(1)))


EXACT = Numerics(is_exact=True)


@pytest.fixture
def stage_of(release: Callable[..., Path], load_span: Callable[..., Any]) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(
        preset: str = "tiny-mixtral",
        spans: tuple[Span, ...] = (Span(0, 6),),
        numerics: Numerics = Numerics(torch.float32),  # noqa: B008  frozen
        **config: Any,
    ) -> Stage:
        models = {span: load_span(release(preset), span, numerics) for span in spans}
        stages.append(Stage(next(iter(models.values())).args, models, StageConfig(**config), CPU))
        return stages[-1]

    yield make
    for stage in stages:
        stage.shut_down()


def test_only_loaded_layers_take_sessions(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of()
    stage.set_loaded((Span(0, 2), Span(3, 6)))
    stage.open((CLIENT, A, 0), 1, Span(3, 5), 64, 1)
    with pytest.raises(StageFull, match="0:2, 3:6 are loaded here so far"):
        stage.open((CLIENT, B, 0), 1, Span(0, 3), 64, 1)
    stage.set_loaded(None)
    stage.open((CLIENT, B, 0), 1, Span(0, 3), 64, 1)


def ids_step(ids: tuple[int, ...], position: int, n_logit_rows: int = 1, epoch: int = 1) -> Step:
    return Step(epoch, position, ids, n_logit_rows)


async def top(stage: Stage, session: object, step: Step) -> tuple[TopLogits, ...]:
    output = await stage.step(session, step)  # type: ignore[arg-type]
    assert isinstance(output.payload, tuple)
    return output.payload


async def test_decode_after_prefill_equals_prefill_of_everything(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of()
    one = stage.open((CLIENT, A, 0), 1, Span(0, 6), 64, 8)
    (whole,) = await top(stage, one, ids_step(IDS, 0))
    other = stage.open((CLIENT, B, 0), 1, Span(0, 6), 64, 8)
    await stage.step(other, ids_step(IDS[:30], 0, 0))
    for position in range(30, 40):
        (last,) = await top(stage, other, ids_step(IDS[position : position + 1], position))
    assert last.ids == whole.ids
    assert last.logits == pytest.approx(whole.logits, abs=1e-5)
    assert last.log_sum_exp == pytest.approx(whole.log_sum_exp, abs=1e-5)


async def test_interleaved_sessions_do_not_disturb_each_other_by_a_bit(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of(numerics=EXACT)

    async def alone(session_id: SessionId, ids: tuple[int, ...]) -> list[TopLogits]:
        session = stage.open((CLIENT, session_id, 0), 1, Span(0, 6), 64, 4)
        rows = [(await top(stage, session, ids_step((i,), position)))[0] for position, i in enumerate(ids)]
        stage.close(session)
        return rows

    undisturbed = await alone(A, IDS[:20]), await alone(B, IDS[20:])
    assert tuple(await asyncio.gather(alone(A, IDS[:20]), alone(B, IDS[20:]))) == undisturbed


async def test_a_split_stage_equals_a_whole_one_bit_for_bit(stage_of: Callable[..., Stage]) -> None:
    whole = stage_of()
    (expected,) = await top(whole, whole.open((CLIENT, A, 0), 1, Span(0, 6), 64, 8), ids_step(IDS, 0))
    parts = stage_of(spans=(Span(0, 1), Span(1, 4), Span(4, 6)))
    step = ids_step(IDS, 0)
    for hop_idx, span in enumerate((Span(0, 1), Span(1, 4), Span(4, 6))):
        session = parts.open((CLIENT, A, hop_idx), 1, span, 64, 8)
        output = await parts.step(session, step)
        if isinstance(output.payload, Rows):
            step = Step(1, 0, output.payload, 1)
    assert output.payload == (expected,)


async def test_part_of_a_hosted_span_can_be_a_hop(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of()
    (expected,) = await top(stage, stage.open((CLIENT, A, 0), 1, Span(0, 6), 64, 8), ids_step(IDS, 0))
    first = await stage.step(stage.open((CLIENT, B, 0), 1, Span(0, 2), 64, 8), ids_step(IDS, 0))
    assert isinstance(first.payload, Rows)
    last = await stage.step(stage.open((CLIENT, B, 1), 1, Span(2, 6), 64, 8), Step(1, 0, first.payload, 1))
    assert last.payload == (expected,)


async def test_a_smaller_position_truncates_and_a_larger_one_is_refused(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of()
    session = stage.open((CLIENT, A, 0), 1, Span(0, 6), 64, 4)
    (expected,) = await top(stage, session, ids_step(IDS[:10], 0))
    await stage.step(session, ids_step(IDS[10:20], 10, 0))
    with pytest.raises(PositionMismatch, match="20 positions are cached"):
        await stage.step(session, ids_step(IDS[:1], 21))
    (again,) = await top(stage, session, ids_step(IDS[9:10], 9))
    assert again.ids == expected.ids
    with pytest.raises(PositionMismatch, match="10 positions are cached"):
        await stage.step(session, ids_step(IDS[:1], 11))


async def test_epochs_fence_the_past(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of()
    old = stage.open((CLIENT, A, 0), 1, Span(0, 6), 64, 4)
    new = stage.open((CLIENT, A, 0), 2, Span(0, 6), 64, 4)
    with pytest.raises(SessionLost):
        await stage.step(old, ids_step(IDS[:1], 0))
    with pytest.raises(StaleEpoch):
        await stage.step(new, ids_step(IDS[:1], 0, epoch=1))
    with pytest.raises(StaleEpoch):
        stage.open((CLIENT, A, 0), 2, Span(0, 6), 64, 4)
    stage.close(old)
    assert stage.n_sessions == 1


async def test_an_epoch_that_was_overtaken_neither_feeds_on_nor_rewinds(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of(spans=(Span(0, 3),))
    session = stage.open((CLIENT, A, 0), 1, Span(0, 3), 64, 4)
    await stage.step(session, ids_step(IDS[:10], 0, 0))
    await stage.step(session, ids_step(IDS[10:20], 10, 0))
    feeding = stage.kept(session, 1, 0, 20, in_same_steps=True)
    assert next(feeding).position == 0
    session.begin(1)  # as the compute thread does; the later epoch comes before it rewinds
    assert stage.open((CLIENT, A, 0), 2, Span(0, 3), 64, 4, fed_positions=20) is session
    with pytest.raises(StaleEpoch):
        session.rewind(1, 5)
    session.end()
    with pytest.raises(StaleEpoch):
        next(feeding)
    assert (session.cached_positions, session.length, session.cache.length) == (20, 20, 20)
    assert [step.position for step in stage.kept(session, 2, 0, 20, in_same_steps=True)] == [0, 10]


async def test_what_a_remote_may_get_wrong_is_refused_and_changes_nothing(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of(spans=(Span(0, 3),), max_chunk_rows=8)
    with pytest.raises(RemoteProtocolError, match="not hosted here"):
        stage.open((CLIENT, A, 0), 1, Span(2, 4), 64, 4)
    with pytest.raises(RemoteProtocolError, match="4096"):
        stage.open((CLIENT, A, 0), 1, Span(0, 3), 4097, 4)
    session = stage.open((CLIENT, A, 0), 1, Span(0, 3), 12, 4)
    for wrong in (
        ids_step((512,), 0),  # outside of the vocabulary
        ids_step((), 0),
        ids_step(IDS[:9], 0),  # more rows than a chunk may have
        ids_step(IDS[:1], 12),  # beyond the session's positions
        ids_step(IDS[:1], 0, n_logit_rows=2),
        Step(1, 0, Rows(1, "fp32", bytes(64 * 4)), 1),  # hidden state into the first stage
    ):
        with pytest.raises(RemoteProtocolError):
            await stage.step(session, wrong)
    assert session.cache.length == 0
    inner = stage.open((CLIENT, B, 1), 1, Span(1, 3), 12, 4)
    for rows in (Rows(1, "fp32", bytes(64 * 4 - 4)), Rows(1, "bf16", bytes(64 * 2))):
        with pytest.raises(RemoteProtocolError):
            await stage.step(inner, Step(1, 0, rows, 0))
    with pytest.raises(RemoteProtocolError):
        await stage.step(inner, ids_step(IDS[:1], 0))
    assert inner.cache.length == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_travel_bit_for_bit(dtype: torch.dtype) -> None:
    h = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = rows_of(h)
    assert len(rows.data) == 5 * 24 * dtype.itemsize
    back = tensor_of(Rows(rows.n_rows, rows.dtype, bytes(rows.data)), 24, CPU)
    assert back.dtype == dtype and torch.equal(back, h)


async def test_a_mask_leaves_the_allowed_ids_with_the_logits_that_they_have_anyway(
    stage_of: Callable[..., Stage],
) -> None:
    stage = stage_of(spans=(Span(0, 3), Span(3, 6)))
    first = stage.open((CLIENT, A, 0), 1, Span(0, 3), 64, 512)
    last = stage.open((CLIENT, A, 1), 1, Span(3, 6), 64, 512)
    hidden = (await stage.step(first, ids_step(IDS, 0))).payload
    (free,) = await top(stage, last, Step(1, 0, hidden, 1))
    allowed = {7, 8, 300, 511}
    mask = bytes(sum(1 << bit for bit in range(8) if 8 * i + bit in allowed) for i in range(512 // 8))
    (masked,) = await top(stage, last, Step(1, 0, hidden, 1, (), mask))
    expected = [(i, logit) for i, logit in zip(free.ids, free.logits, strict=True) if i in allowed]
    assert list(zip(masked.ids, masked.logits, strict=True)) == expected
    assert masked.log_sum_exp == pytest.approx(math.log(sum(math.exp(logit) for _, logit in expected)), abs=1e-5)


async def test_a_mask_that_makes_no_sense_is_refused_and_changes_nothing(stage_of: Callable[..., Stage]) -> None:
    stage = stage_of("odd-mixtral", spans=(Span(0, 3),))  # 300 ids: 38 bytes, the last one with 4 bits
    session = stage.open((CLIENT, A, 0), 1, Span(0, 3), 64, 8)
    for step, why in (
        (Step(1, 0, IDS, 2, (), b"\xff" * 37 + b"\x0f"), "with 2 rows"),
        (Step(1, 0, IDS, 0, (), b"\xff" * 37 + b"\x0f"), "with 0 rows"),
        (Step(1, 0, IDS, 1, (), b"\xff" * 37), "37 bytes"),
        (Step(1, 0, IDS, 1, (), b"\xff" * 39), "39 bytes"),
        (Step(1, 0, IDS, 1, (), bytes(38)), "no token at all"),
        (Step(1, 0, IDS, 1, (), bytes(37) + b"\x10"), "beyond the vocabulary of 300"),
    ):
        with pytest.raises(RemoteProtocolError, match=why):
            await stage.step(session, step)
    (one,) = await top(stage, session, Step(1, 0, IDS, 1, (), bytes(37) + b"\x08"))
    assert one.ids == (299,)
    assert one.log_sum_exp == one.logits[0]
