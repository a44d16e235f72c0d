"""What a stage may take and give."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.stage.scheduler import BatchConfig
from swarm.errors import BadArgument


@dataclass(frozen=True, slots=True)
class StageConfig:
    """cache_budget_bytes: for the KV pages of all sessions together, which take them as they grow; what they leave
    keeps prefixes for the sessions to come.

    max_sessions: more of them queue longer for the one compute thread. max_waiting_rows: tokens of prompts that may be
    promised and not yet computed; more make everybody's first token wait longer. max_chunk_rows: rows in one step; more
    need more scratch memory and make the other sessions wait longer. max_answer_logits: logits returned by one step;
    each costs 8 bytes on the wire and some 60 while the answer is made.
    """

    cache_budget_bytes: int = 1 << 30
    max_sessions: int = 64
    max_waiting_rows: int = 16384
    max_chunk_rows: int = 512
    max_answer_logits: int = 1 << 18
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        if self.cache_budget_bytes <= 0 or self.max_sessions <= 0 or self.max_chunk_rows <= 0:
            raise BadArgument("the cache budget, the number of sessions and the rows of a chunk must be positive")
        if self.max_answer_logits < 1 or self.max_waiting_rows < 1:
            raise BadArgument("max_answer_logits and max_waiting_rows must be positive")
