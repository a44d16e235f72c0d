"""One batch through the layers: steps of several sessions in, their hidden state or largest logits out.

Runs in the compute thread. A step that cannot be computed fails alone; a batch that fails takes its steps with it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from node.model import PAGE, Chunk, SpanModel, Steps, is_out_of_memory
from node.stage.batch import Job, Slice
from node.stage.rows import rows_of, tensor_of
from node.stage.session import StageSession
from node.stage.top_logits import allowed_ids, top_allowed_logits, top_logits
from swarm.errors import RemoteProtocolError, StageFull, SwarmError
from swarm.messages import Rows, Step

LOGIT_ROWS = 64
"""Rows that go through the head at once: a vocabulary of 131072 makes 32 MiB of logits of them."""

MakeRoom = Callable[[StageSession, Collection[StageSession]], StageSession]
"""(who needs a page, whom this batch has in hand) -> the session that was sent away for it. Raises: StageFull when it
is the asker's turn to go.
"""

Entered = tuple[Slice, StageSession, Step, Tensor | tuple[int, ...]]


@torch.inference_mode()
def compute_batch(slices: list[Slice], make_room: MakeRoom) -> Steps[None]:
    """Compute the slices, all of one model and one span of layers; see ComputeThread for what becomes of a job.

    Where the cache is full, sessions give way to older ones. Without the memory to compute it the whole batch fails
    with StageFull. Its steps end where rows wait for experts elsewhere: other batches, of other sessions, may be
    computed meanwhile.
    """
    held: list[StageSession] = []
    try:
        yield from _compute(slices, make_room, held)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        for part in slices:
            part.job.error = StageFull("the node ran out of memory in this step; try another", retry_after_s=10.0)
    finally:
        for session in held:
            session.end()


def _compute(slices: list[Slice], make_room: MakeRoom, held: list[StageSession]) -> Steps[None]:
    """held: takes the sessions that are in hand until the batch ends."""
    ready: list[Entered] = []
    for part in slices:
        session, step = part.job.work
        try:
            session.begin(step.epoch)
            held.append(session)
            entered = _enter(part, session, step)
            while not _prepare(session, part.n_rows):
                _drop(make_room(session, held), ready)
            ready.append((part, session, step, entered))
        except SwarmError as error:
            part.job.error = error
    if not ready:
        return
    model, span = ready[0][1].model, ready[0][1].span
    h = _together(model, [rows for *_, rows in ready])  # (T, D)
    chunks = [Chunk(session.cache, part.n_rows) for part, session, _, _ in ready]
    h = yield from model.batch_steps(h, chunks, span)
    is_last = span.end == model.args.n_layers
    n_rows = [part.n_rows for part, *_ in ready]
    outputs = (h if is_last else h.cpu()).split(n_rows)
    for (part, session, step, _), output, kept in zip(ready, outputs, h.split(n_rows), strict=True):
        session.cache.keep_rows(kept)
        _file_pages(part, session, step)
        part.job.outputs.append(output)
    finished = [(part.job, *part.job.work) for part, *_ in ready if part.n_rows == part.job.n_left]
    for _, session, step in finished:
        session.note(step)
    if is_last:
        _answer_logits(model, finished)
    else:
        for job, _, _ in finished:
            job.answer = rows_of(torch.cat(job.outputs) if len(job.outputs) > 1 else job.outputs[0])


def _prepare(session: StageSession, n_rows: int) -> bool:
    """Have pages for the next rows; False when there are none."""
    try:
        session.cache.prepare(n_rows)
    except StageFull:
        return False
    return True


def _drop(session: StageSession, ready: list[Entered]) -> None:
    """Leave a session that was sent away out of the batch, and have its pages at once."""
    session.end()
    for entered in [entered for entered in ready if entered[1] is session]:
        ready.remove(entered)
        try:
            session.check_open(entered[2].epoch)
        except SwarmError as why:
            entered[0].job.error = why


def _together(model: SpanModel, entered: Sequence[Tensor | tuple[int, ...]]) -> Tensor:
    """Ids, or rows, of all slices -> (T, D) on the model's device, in one transfer."""
    rows = [each for each in entered if isinstance(each, Tensor)]
    if rows:
        return (rows[0] if len(rows) == 1 else torch.cat(rows)).to(model.device)
    ids = itertools.chain.from_iterable(each for each in entered if not isinstance(each, Tensor))
    return model.embed(torch.tensor(list(ids), dtype=torch.long))


def _enter(part: Slice, session: StageSession, step: Step) -> Tensor | tuple[int, ...]:
    """The slice's token ids (t) or rows (t, D), not yet on the device, and its cache at their position.

    Raises: SessionLost, StaleEpoch, PositionMismatch, ContextLengthExceeded, RemoteProtocolError; the cache is then
    what it was before the step, or ends where the step's last slice did.
    """
    model, first = session.model, part.job.n_done
    if isinstance(step.payload, Rows):
        rows = tensor_of(step.payload, model.args.dim, torch.device("cpu"))
        if rows.dtype != model.dtype:
            raise RemoteProtocolError(f"rows of {step.payload.dtype} came to a stage that computes in {model.dtype}")
        entered: Tensor | tuple[int, ...] = rows[first : first + part.n_rows]
    else:
        entered = step.payload[first : first + part.n_rows]
    model.require_loaded(session.span, session.cache.span)
    if first == 0:
        session.rewind(step.epoch, step.position)
    session.cache.require_room(part.n_rows)
    return entered


def _file_pages(part: Slice, session: StageSession, step: Step) -> None:
    """Let sessions to come find the pages that this slice has filled."""
    if not session.scope or not step.page_hashes:
        return
    end = session.cache.length
    first_page = step.position // PAGE
    for page in range((end - part.n_rows) // PAGE, end // PAGE):
        nth = page - first_page
        if nth < len(step.page_hashes):
            session.cache.file(page, (session.scope, step.page_hashes[nth]))


def _answer_logits(model: SpanModel, finished: Sequence[tuple[Job, StageSession, Step]]) -> None:
    """The largest logits of the last rows of each step that wants some: LOGIT_ROWS rows at once through the head."""
    wanted: list[Tensor] = []
    owners: list[tuple[Job, StageSession, Step]] = []
    for job, session, step in finished:
        job.answer = ()
        if step.n_logit_rows:
            h = torch.cat(job.outputs) if len(job.outputs) > 1 else job.outputs[0]
            wanted.append(h[-step.n_logit_rows :])
            owners += [(job, session, step)] * step.n_logit_rows
    if not wanted:
        return
    pieces = (torch.cat(wanted) if len(wanted) > 1 else wanted[0]).split(LOGIT_ROWS)
    for nth, piece in enumerate(pieces):
        _answer_piece(model, piece, owners[nth * LOGIT_ROWS : (nth + 1) * LOGIT_ROWS])


def _answer_piece(model: SpanModel, h: Tensor, owners: Sequence[tuple[Job, StageSession, Step]]) -> None:
    """Row i of h is the next of owners[i]'s."""
    logits = model.logits(h)
    alike: dict[int, list[int]] = defaultdict(list)
    for nth, (job, session, step) in enumerate(owners):
        if step.allowed:
            allowed = allowed_ids(step.allowed, model.args.vocab_size)
            job.answer = top_allowed_logits(logits[nth : nth + 1], session.n_top, allowed)
        else:
            alike[session.n_top].append(nth)
    for n_top, rows in alike.items():
        for nth, top in zip(rows, top_logits(logits if len(rows) == len(h) else logits[rows], n_top), strict=True):
            job = owners[nth][0]
            job.answer = (*job.answer, top)
