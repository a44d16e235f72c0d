"""A span of layers that serves sessions: opens them, runs their steps one after another, bounds what they may cache.

Promises that steps of different sessions never disturb each other, that a step is computed at exactly the position
that it
states or refused, and that the cache never outgrows its budget. Knows nothing of routes, nodes, streams or sampling:
hidden state (or token ids) in, hidden state (or the largest logits) out.
"""

from node.stage.batch import BatchConfig, Job, Slice
from node.stage.compute import is_out_of_memory
from node.stage.config import StageConfig
from node.stage.prefixes import Prefix
from node.stage.rows import DTYPES, rows_of, tensor_of
from node.stage.scheduler import WATCH_S, ComputeThread
from node.stage.session import StageSession
from node.stage.shares import may_have
from node.stage.stage import Stage, StepOutput
from node.stage.top_logits import top_logits

__all__ = [
    "DTYPES",
    "WATCH_S",
    "BatchConfig",
    "ComputeThread",
    "Job",
    "Prefix",
    "Slice",
    "Stage",
    "StageConfig",
    "StageSession",
    "StepOutput",
    "is_out_of_memory",
    "may_have",
    "rows_of",
    "tensor_of",
    "top_logits",
]
