"""The stream of training batches: a pure function of (seed, step, part), so that training resumes anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch

from embedded.corpus import Chat, Document, training_documents
from embedded.mixtral import ROW_TILE, Batch, Group
from embedded.rendering import Rendered, Renderer

MAX_DOCUMENT_TOKENS = 512
LONG_CHAT_SHARE = 0.02
"""Of the documents, those that are made of many chats, so that positions far from the start are met too."""

FOCUS: Mapping[str, float] = MappingProxyType({"reading": 4.0, "sorting": 3.0, "memory": 2.5, "infill": 1.3})
"""Of the last steps: the kinds that take longest to learn come as many times as often."""

_MAX_PADDING = 1.12
"""A group's longest document over its shortest: more saves calls, less saves rows."""


class BatchStream:
    """Batches of at most `n_rows` rows, padding between documents included. Holds no state between calls."""

    def __init__(self, renderer: Renderer, seed: int, n_rows: int) -> None:
        self._renderer = renderer
        self._seed = seed
        self._n_rows = n_rows

    def batch(self, step_idx: int, part: int, *, is_focused: bool = False) -> Batch:
        """The batch of this step's part: always the same one. is_focused: with more of what is hard, by FOCUS."""
        emphasis = FOCUS if is_focused else {}
        seed = random.Random(f"{self._seed}/{step_idx}/{part}").getrandbits(48)
        rendered: list[Rendered] = []
        n_tokens = 0
        for document in _with_long_chats(training_documents(seed, emphasis), random.Random(seed)):
            one = self._renderer.render(document)
            if len(one.ids) > MAX_DOCUMENT_TOKENS:
                continue
            if n_tokens + len(one.ids) > self._n_rows * 0.94:
                break
            n_tokens += len(one.ids)
            rendered.append(one)
        return collate(rendered)


def collate(rendered: Sequence[Rendered]) -> Batch:
    """Documents of like length side by side, each without its last id, which is only ever a target."""
    ordered = sorted(rendered, key=lambda one: len(one.ids))
    groups: list[Group] = []
    ids: list[int] = []
    targets: list[int] = []
    is_real: list[bool] = []
    for members in _groups(ordered):
        length = len(members[-1].ids) - 1
        groups.append(Group(len(ids), len(members), length))
        for one in members:
            n_padding = length - (len(one.ids) - 1)
            ids += one.ids[:-1] + [0] * n_padding
            targets += [target if learned else -1 for target, learned in zip(one.ids[1:], one.learned[1:], strict=True)]
            targets += [-1] * n_padding
            is_real += [True] * (length - n_padding) + [False] * n_padding
    n_padding = -len(ids) % ROW_TILE
    return Batch(
        torch.tensor(ids + [0] * n_padding),
        torch.tensor(targets + [-1] * n_padding),
        torch.tensor(is_real + [False] * n_padding),
        tuple(groups),
    )


def _groups(ordered: Sequence[Rendered]) -> Iterator[list[Rendered]]:
    members: list[Rendered] = []
    for one in ordered:
        if members and len(one.ids) - 1 > _MAX_PADDING * (len(members[0].ids) - 1):
            yield members
            members = []
        members.append(one)
    if members:
        yield members


def _with_long_chats(documents: Iterator[Document], rng: random.Random) -> Iterator[Document]:
    """The documents; a few of them are followed by one that joins the next chats to a long conversation."""
    for document in documents:
        yield document
        if rng.random() < LONG_CHAT_SHARE:
            yield _long_chat(documents, rng.randrange(5, 14))


def _long_chat(documents: Iterator[Document], n_chats: int) -> Chat:
    turns = []
    while n_chats:
        document = next(documents)
        if isinstance(document, Chat) and not document.system:
            turns += document.turns
            n_chats -= 1
    return Chat("mixed", "", tuple(turns))
