"""One batch through the layers: steps of several sessions in, their hidden state or largest logits out.

Runs in the compute thread. A step that cannot be computed fails alone; a batch that fails takes its steps with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from node.model import PAGE, Chunk, SpanModel, Steps
from node.stage.rows import rows_of, tensor_of
from node.stage.scheduler import Job, Slice
from node.stage.session import StageSession
from node.stage.top_logits import allowed_ids, top_allowed_logits, top_logits
from swarm.errors import RemoteProtocolError, SwarmError
from swarm.messages import Rows, Step, TopLogits


@torch.inference_mode()
def compute_batch(slices: list[Slice]) -> Steps[None]:
    """Compute the slices, all of one model and one span of layers; see ComputeThread for what becomes of a job.

    Its steps end where rows wait for experts elsewhere: other batches, of other sessions, may be computed meanwhile.
    """
    ready: list[tuple[Slice, StageSession, Step, Tensor]] = []
    held: list[StageSession] = []
    try:
        for part in slices:
            session, step = part.job.work
            try:
                session.begin(step.epoch)
                held.append(session)
                ready.append((part, session, step, _enter(part, session, step)))
            except SwarmError as error:
                part.job.error = error
        if not ready:
            return
        model, span = ready[0][1].model, ready[0][1].span
        rows = [h for *_, h in ready]
        h = rows[0] if len(rows) == 1 else torch.cat(rows)  # (T, D)
        chunks = [Chunk(session.cache, part.n_rows) for part, session, _, _ in ready]
        h = yield from model.batch_steps(h, chunks, span)
        outputs = h.split([part.n_rows for part, *_ in ready])
        for (part, session, step, _), output in zip(ready, outputs, strict=True):
            session.cache.keep_rows(output)
            _file_pages(part, session, step)
            part.job.outputs.append(output)
        finished = [(part.job, *part.job.work) for part, *_ in ready if part.n_rows == part.job.n_left]
        for _, session, step in finished:
            session.note(step)
        if span.end == model.args.n_layers:
            _answer_logits(model, finished)
        else:
            for job, _, _ in finished:
                job.answer = rows_of(torch.cat(job.outputs) if len(job.outputs) > 1 else job.outputs[0])
    finally:
        for session in held:
            session.end()


def _enter(part: Slice, session: StageSession, step: Step) -> Tensor:
    """The slice's rows (t, D), its cache at their position with pages for them.

    Raises: SessionLost, PositionMismatch, ContextLengthExceeded, StageFull, RemoteProtocolError; the cache is then
    what it was before the step, or ends where the step's last slice did.
    """
    model, first = session.model, part.job.n_done
    if isinstance(step.payload, Rows):
        h = tensor_of(step.payload, model.args.dim, model.device)
        if h.dtype != model.dtype:
            raise RemoteProtocolError(f"rows of {step.payload.dtype} came to a stage that computes in {model.dtype}")
        h = h[first : first + part.n_rows]
    else:
        ids = step.payload[first : first + part.n_rows]
        h = model.embed(torch.tensor(ids, dtype=torch.long, device=model.device))
    model.require_loaded(session.span, session.cache.span)
    if first == 0:
        session.rewind(step.position)
    session.cache.require_room(part.n_rows)
    session.cache.prepare(part.n_rows)
    return h


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
    """The largest logits of the last rows of each step that wants some: one product with the head for all of them."""
    wanted = []
    for job, _, step in finished:
        job.answer = ()
        if step.n_logit_rows:
            h = torch.cat(job.outputs) if len(job.outputs) > 1 else job.outputs[0]
            wanted.append(h[-step.n_logit_rows :])
    if not wanted:
        return
    logits = model.logits(torch.cat(wanted) if len(wanted) > 1 else wanted[0]).split([len(h) for h in wanted])
    alike: dict[int, list[tuple[Job, Tensor]]] = defaultdict(list)
    asking = [(job, session, step) for job, session, step in finished if step.n_logit_rows]
    for (job, session, step), rows in zip(asking, logits, strict=True):
        if step.allowed:
            job.answer = top_allowed_logits(rows, session.n_top, allowed_ids(step.allowed, model.args.vocab_size))
        else:
            alike[session.n_top].append((job, rows))
    for n_top, jobs in alike.items():
        tops: list[TopLogits] = list(top_logits(torch.cat([rows for _, rows in jobs]), n_top))
        for job, rows in jobs:
            job.answer, tops = tuple(tops[: len(rows)]), tops[len(rows) :]
