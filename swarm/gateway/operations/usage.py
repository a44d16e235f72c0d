"""What a ledger adds up to: requests, tokens and cost, by key, model, node or day. Reads only, while a gateway writes.

A request that several nodes served is split among them by the layers that each computed, so that rows by node add up to
what rows by key do. A day is one of UTC, and a request belongs to the day on which it finished.
"""

from __future__ import annotations

import datetime
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from swarm.errors import BadArgument
from swarm.gateway.operations.ledger import check_is_ledger
from swarm.gateway.operations.prices import PriceTable

GROUPINGS = ("key", "model", "node", "day")
COLUMNS = {
    "key": "r.key",
    "model": "r.model",
    "node": "coalesce(s.node_id, '')",
    "day": "strftime('%Y-%m-%d', r.finished_s, 'unixepoch')",
}
BY_REQUEST = "from requests r"
BY_NODE = (
    "from requests r left join shares s on s.request = r.id left join"
    " (select request, sum(layer_steps) as layer_steps, count(*) as n from shares group by request) t"
    " on t.request = r.id"
)
SHARE = (
    "case when s.node_id is null then 1.0 when t.layer_steps > 0 then 1.0 * s.layer_steps / t.layer_steps"
    " else 1.0 / t.n end"
)
UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(slots=True)
class UsageRow:
    """Sums over one group. group: its values, in the order of the groupings; a node "" is none.

    tokens_in, tokens_out: whole, but by node each node's share. compute_s: of the nodes; 0.0 unless grouped by node.
    cost: None where no price is known for any of it.
    """

    group: tuple[str, ...]
    n_requests: int = 0
    tokens_in: float = 0
    tokens_out: float = 0
    compute_s: float = 0.0
    cost: Decimal | None = None

    def add(self, n_requests: int, tokens_in: float, tokens_out: float, compute_s: float) -> None:
        self.n_requests += n_requests
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.compute_s += compute_s

    def add_cost(self, cost: Decimal) -> None:
        self.cost = (self.cost or Decimal(0)) + cost


@dataclass(slots=True)
class UsageReport:
    """rows: the greatest use first, but days in their order. unpriced: models that the price table does not have."""

    by: tuple[str, ...]
    rows: list[UsageRow]
    total: UsageRow
    currency: str = ""
    unpriced: list[str] = field(default_factory=list)


def read_usage(
    file: Path,
    by: Sequence[str] = ("key",),
    *,
    since_s: float | None = None,
    until_s: float | None = None,
    prices: PriceTable | None = None,
) -> UsageReport:
    """Add up what finished in [since_s, until_s), in Unix time, by some of GROUPINGS.

    Raises: BadArgument when there is no ledger at `file`, or it cannot be read.
    """
    groups = tuple(by)
    if not groups or len(set(groups)) != len(groups) or not set(groups) <= set(GROUPINGS):
        raise BadArgument(f"usage is grouped by one or more of {', '.join(GROUPINGS)}, each once")
    if not file.exists():
        raise BadArgument(
            f"there is no ledger {file}; a gateway keeps one there, or where its own --ledger says: name it with "
            "--ledger FILE"
        )
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            check_is_ledger(connection, file)
            return add_up(connection, groups, since_s, until_s, prices)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise BadArgument(f"the ledger {file} cannot be read: {error}; name another file with --ledger") from error


def add_up(
    connection: sqlite3.Connection,
    by: tuple[str, ...],
    since_s: float | None,
    until_s: float | None,
    prices: PriceTable | None,
) -> UsageReport:
    columns = [COLUMNS[name] for name in by]
    is_by_node = "node" in by
    share = SHARE if is_by_node else "1"
    compute_s = "sum(coalesce(s.compute_s, 0.0))" if is_by_node else "0.0"
    where = "where (:since is null or r.finished_s >= :since) and (:until is null or r.finished_s < :until)"
    period = {"since": since_s, "until": until_s}
    rows: dict[tuple[str, ...], UsageRow] = {}
    report = UsageReport(by, [], UsageRow(()), prices.currency if prices is not None else "")
    for *group, model, n_requests, tokens_in, tokens_out, spent_s in connection.execute(
        f"select {', '.join(columns)}, r.model, count(*), sum(r.tokens_in * {share}), sum(r.tokens_out * {share}),"
        f" {compute_s} {BY_NODE if is_by_node else BY_REQUEST} {where} group by {', '.join(columns)}, r.model",
        period,
    ):
        row = rows.setdefault(tuple(group), UsageRow(tuple(group)))
        price = prices.of(model) if prices is not None else None
        for line in (row, report.total):
            line.add(n_requests, tokens_in, tokens_out, spent_s)
            if price is not None:
                line.add_cost(price.cost(tokens_in, tokens_out))
        if prices is not None and price is None and model not in report.unpriced:
            report.unpriced.append(model)
    # A request that three nodes served is in three rows, and one request all the same.
    report.total.n_requests = connection.execute(f"select count(*) {BY_REQUEST} {where}", period).fetchone()[0]
    report.rows = sorted(rows.values(), key=lambda row: (-row.tokens_in - row.tokens_out, row.group))
    if "day" in by:
        day_idx = by.index("day")
        report.rows.sort(key=lambda row: row.group[day_idx])
    return report


def parse_moment(text: str, now_s: float) -> float:
    """`2026-02-01`, `2026-02-01T12:00` (UTC unless it says otherwise) or `7d`, `24h`, `90m` ago, as Unix time.

    Raises: BadArgument.
    """
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if ago is not None:
        return now_s - int(ago[1]) * UNITS_S[ago[2]]
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadArgument(
            f"{text!r} is no moment; write a date such as 2026-02-01, a time such as 2026-02-01T12:00, or 7d, 24h or "
            "90m for so long ago"
        ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp()
