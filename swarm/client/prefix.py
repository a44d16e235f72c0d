"""What a generation tells its stages of the pages that it fills, so that later ones need not compute them again.

A page may stand in for a computation only where it has the very bits that the computation would have come to. Where a
row's bits do not depend on the chunk that it was computed in, that is any page. Elsewhere it is a page that was
computed as one whole chunk, as everybody computes the full pages of a prompt; and what was emitted already must come
out of the same steps again, so nothing is asked for then.
"""

from __future__ import annotations

from swarm.client.journal import Journal
from swarm.pages import MAX_PAGES_OFFERED, PAGE, n_pages_completed, page_hashes
from swarm.terms import Profile


class PageNames:
    """The hashes of the pages of one generation's ids, as they come to be.

    secret: the client's own. Stages see nothing of the ids in its hashes, and those of other clients differ.
    """

    def __init__(self, journal: Journal, secret: bytes) -> None:
        self._journal = journal
        self._secret = secret
        self._hashes: tuple[bytes, ...] = ()

    def offered(self, profile: Profile) -> tuple[bytes, ...]:
        """Of the pages to look for in the caches of a new route; they leave at least one id to feed."""
        journal = self._journal
        if journal.emitted and not profile.is_chunk_invariant:
            return ()
        n_ids = len(journal.prompt_ids) + len(journal.emitted)
        return self._first(min((n_ids - 1) // PAGE, MAX_PAGES_OFFERED))

    def completed(self, position: int, n_rows: int, profile: Profile) -> tuple[bytes, ...]:
        """Of the pages that a step of the journal's ids [position, position + n_rows) fills up; () to leave them
        unnamed.
        """
        n_pages = n_pages_completed(position, n_rows)
        is_one_page = n_rows == PAGE and position % PAGE == 0
        if n_pages == 0 or not (is_one_page or profile.is_chunk_invariant):
            return ()
        return self._first(position // PAGE + n_pages)[-n_pages:]

    def _first(self, n_pages: int) -> tuple[bytes, ...]:
        if len(self._hashes) < n_pages:
            self._hashes = page_hashes(self._journal.ids, self._secret, self._hashes)
        return self._hashes[:n_pages]
