"""What travels on a session's streams, as plain values: Open, Step, Result and what answers them. No IO, no
protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.facts import Hop
from swarm.terms import ExpertId, Infohash, NodeId, Profile, SessionId


@dataclass(frozen=True, slots=True)
class Open:
    """Starts epoch `epoch` of a session on hops[hop_idx]; that stage opens hops[hop_idx + 1] with hop_idx + 1.

    client_id: who may read the results. max_positions: the most tokens that the session will ever cache.
    n_top: how many of the largest logits the last stage returns per row.
    page_hashes: of the first pages (swarm/pages.py) of what will be fed; the client would rather find them cached than
    compute them. At least one position more is fed. Each stage begins with those that it has, up to the first that it
    has not.
    fed_positions: so many of the first positions were fed, in earlier epochs, what this epoch would feed there, in
    steps that end where its own would. A stage that still has some of them, for the same layers, begins with those.
    known_positions: that the client has ids for and feeds at once, its prompt or what it replays; 0 when it does not
    say. Stages admit by it, and a prompt longer than this may find no room.
    """

    session_id: SessionId
    epoch: int
    release: Infohash
    client_id: NodeId
    hops: tuple[Hop, ...]
    hop_idx: int
    profile: Profile
    max_positions: int
    n_top: int
    page_hashes: tuple[bytes, ...] = ()
    fed_positions: int = 0
    known_positions: int = 0


@dataclass(frozen=True, slots=True)
class HopTime:
    """What one hop spent on one step, in seconds of its own clock."""

    node_id: NodeId
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Rows:
    """T rows of hidden state: row-major bytes, length n_rows * dim * itemsize(dtype). dtype: 'fp32' or 'bf16'."""

    n_rows: int
    dtype: str
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk of a session: T token ids into the first stage, T rows of hidden state into each next one.

    position: tokens cached before it. Equal to the stage's count: compute. Smaller: the stage truncates first.
    Larger: refused.
    n_logit_rows: of how many of the last rows the client wants logits (0 for all but the last chunk of a prompt).
    hop_times: what the hops before this one spent, first hop first.
    allowed: which token ids the logits may be of, bit i of byte i // 8 (the lowest first) for id i; empty for all.
    Every stage passes it on as it came, and the last one answers as if no other ids existed: log_sum_exp too is of
    the allowed ones. Only a step with n_logit_rows of 1 has it.
    page_hashes: of the pages which this step fills up, all of them, under which sessions to come may find them; empty
    to leave them unnamed. Every stage passes them on as they came.
    """

    epoch: int
    position: int
    payload: tuple[int, ...] | Rows
    n_logit_rows: int
    hop_times: tuple[HopTime, ...] = ()
    allowed: bytes = b""
    page_hashes: tuple[bytes, ...] = ()

    @property
    def n_rows(self) -> int:
        return self.payload.n_rows if isinstance(self.payload, Rows) else len(self.payload)


@dataclass(frozen=True, slots=True)
class Leave:
    """The last thing said into a session's stream: once the steps before it are done, nobody comes back to the session.

    A stream that ends without it broke, and another may take up what its stages cached.
    """


@dataclass(frozen=True, slots=True)
class TopLogits:
    """The n_top largest logits of one row, largest first (ties: smaller id first), and log(sum(exp(all logits))).

    Where the step said which ids are allowed, "all" are those.
    """

    ids: tuple[int, ...]
    logits: tuple[float, ...]
    log_sum_exp: float


@dataclass(frozen=True, slots=True)
class Result:
    """The last stage's answer to one Step. position: that step's position plus its rows, i.e. tokens cached now.

    rows: one TopLogits per row asked for, in order; empty when none was asked for.
    """

    epoch: int
    position: int
    rows: tuple[TopLogits, ...]
    hop_times: tuple[HopTime, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """Every stage from here to the end of the route has the session open.

    cached: positions that need not be fed: whole pages of those that the Open offered, or what an earlier epoch left.
    The first step's position is this, or less. Stages behind that have less are fed by the one before them, from the
    rows that it kept; one that has more gets no row twice.
    answered: positions that the last stage begins with: no Result comes of a step that ends there or before.
    """

    epoch: int
    cached: int = 0
    answered: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage's error, passed up the route. code: the error class's name, from the closed table in swarm.rpc.

    hop_idx: the hop at fault: the one that raised it, or the one that could not be reached any more.
    """

    hop_idx: int
    node_id: NodeId
    code: str
    message: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ExpertOpen:
    """Starts a stream of ExpertCalls. profile: the caller's own; a host that cannot keep it refuses the stream."""

    release: Infohash
    profile: Profile


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """What some experts of one layer are asked for. It leaves nothing behind and may be asked again, or of others.

    request_id: the stream's own, repeated by what answers it. rows: (T, dim), each at most once. wanted: per expert,
    ascending, which of the rows it gets, ascending too.
    """

    request_id: int
    layer_idx: int
    wanted: tuple[tuple[int, tuple[int, ...]], ...]
    rows: Rows

    @property
    def experts(self) -> tuple[ExpertId, ...]:
        return tuple(ExpertId(self.layer_idx, expert_idx) for expert_idx, _ in self.wanted)

    @property
    def n_answers(self) -> int:
        """Rows of the answer."""
        return sum(len(row_idxs) for _, row_idxs in self.wanted)


@dataclass(frozen=True, slots=True)
class ExpertAnswer:
    """rows: (n_answers, dim), expert by expert in the order of `wanted`. queue_s, compute_s: by the host's clock."""

    request_id: int
    rows: Rows
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class ExpertRefusal:
    """The host does not answer this one call: code and message as in Failure."""

    request_id: int
    code: str
    message: str
