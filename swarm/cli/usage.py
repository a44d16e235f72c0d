"""`swarm usage`: what a gateway served, to whom and by which nodes, and what it costs."""

from __future__ import annotations

import csv
import datetime
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import note, out_console, print_json
from swarm.cli.options import json_option
from swarm.errors import BadArgument
from swarm.terms import is_node_id, short_id

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.table import Table

    from swarm.gateway.operations.usage import UsageReport, UsageRow

USAGE_SCHEMA = "swarm.usage/1"
GROUPINGS = ("key", "model", "node", "day")


@click.command(epilog="Example: swarm usage --by key --by model --since 30d --prices prices.toml")
@click.option(
    "--by",
    type=click.Choice(GROUPINGS),
    multiple=True,
    help="What a row stands for (repeatable: a row for each combination; default: key).",
)
@click.option("--since", metavar="WHEN", help="Requests finished then or later: 2026-02-01 (UTC), or 7d, 24h, 90m ago.")
@click.option("--until", metavar="WHEN", help="Requests finished before then.")
@click.option(
    "--prices",
    "prices_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SWARM_PRICES",
    show_envvar=True,
    help="TOML table of prices per million tokens; adds a column of costs.",
)
@click.option(
    "--ledger",
    "ledger_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SWARM_LEDGER",
    show_envvar=True,
    help="The gateway's ledger (default: gateway-usage.sqlite in the user's data folder).",
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout, for spreadsheets.")
@json_option
def usage(
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    prices_file: Path | None,
    ledger_file: Path | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Add up what a gateway served: requests, tokens in and out, by key, model, node or day.

    By node, a request is split among the nodes that served it by the layers that each computed. The gateway may be
    running meanwhile. Days are of UTC.
    """
    from swarm.gateway.operations.ledger import default_ledger_path
    from swarm.gateway.operations.prices import load_prices
    from swarm.gateway.operations.usage import parse_moment, read_usage

    if as_csv and as_json:
        raise BadArgument("--csv and --json are two shapes of one answer; leave one out")
    now_s = time.time()
    since_s, until_s = (None if text is None else parse_moment(text, now_s) for text in (since, until))
    prices = None if prices_file is None else load_prices(prices_file)
    report = read_usage(
        ledger_file or default_ledger_path(), by or ("key",), since_s=since_s, until_s=until_s, prices=prices
    )
    if as_json:
        print_json(USAGE_SCHEMA, report_fields(report, since_s, until_s))
    elif as_csv:
        write_csv(report)
    else:
        print_report(report)
    if report.unpriced:
        note(f"no price for {', '.join(report.unpriced)}: costs are without; add [models.NAME] or [default]")


def report_fields(report: UsageReport, since_s: float | None, until_s: float | None) -> dict[str, Any]:
    return {
        "by": list(report.by),
        "since": iso_moment(since_s),
        "until": iso_moment(until_s),
        "currency": report.currency or None,
        "rows": [dict(zip(report.by, row.group, strict=True)) | row_fields(report, row) for row in report.rows],
        "total": row_fields(report, report.total),
        "unpriced": report.unpriced,
    }


def row_fields(report: UsageReport, row: UsageRow) -> dict[str, Any]:
    """Costs are strings: a decimal number, which JSON's readers would make a binary one."""
    fields: dict[str, Any] = {
        "requests": row.n_requests,
        "tokens_in": whole(row.tokens_in),
        "tokens_out": whole(row.tokens_out),
    }
    if "node" in report.by:
        fields["compute_s"] = round(row.compute_s, 3)
    if report.currency:
        fields["cost"] = None if row.cost is None else f"{row.cost:.6f}"
    return fields


def whole(tokens: float) -> int | float:
    """A count; a node's share of one keeps three decimals."""
    return int(tokens) if tokens == int(tokens) else round(tokens, 3)


def write_csv(report: UsageReport) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*report.by, *row_fields(report, report.total), *(["currency"] if report.currency else [])])
    for row in report.rows:
        values = ["" if value is None else value for value in row_fields(report, row).values()]
        currency = [harmless(report.currency)] if report.currency else []
        writer.writerow([*map(harmless, row.group), *values, *currency])


def harmless(cell: str) -> str:
    """Text that no spreadsheet takes for a formula: releases, and so models, are named by strangers."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def print_report(report: UsageReport) -> None:
    if not report.rows:
        click.echo("nothing was served in that time")
        return
    out_console().print(report_table(report))


def report_table(report: UsageReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=len(report.rows) > 1, footer_style="bold")
    totals = amounts(report, report.total)
    for i, name in enumerate(report.by):
        table.add_column(name, footer="total" if i == 0 else "", no_wrap=True)
    for (heading, _), (_, total) in zip(totals, totals, strict=True):
        table.add_column(heading, footer=total, justify="right", no_wrap=True)
    for row in report.rows:
        names = [Text(shown(name, value)) for name, value in zip(report.by, row.group, strict=True)]
        table.add_row(*names, *(amount for _, amount in amounts(report, row)))
    return table


def shown(grouping: str, value: str) -> str:
    if grouping == "node":
        return short_id(value) if is_node_id(value) else value or "(none)"
    return value


def amounts(report: UsageReport, row: UsageRow) -> list[tuple[str, str]]:
    """Heading and text of each number of a row."""
    columns = [
        ("requests", f"{row.n_requests:,}"),
        ("tokens in", f"{row.tokens_in:,.0f}"),
        ("tokens out", f"{row.tokens_out:,.0f}"),
    ]
    if "node" in report.by:
        columns.append(("compute", f"{row.compute_s:,.1f} s"))
    if report.currency:
        columns.append((report.currency, "-" if row.cost is None else format_money(row.cost)))
    return columns


def format_money(amount: Decimal) -> str:
    """Cents, and as many digits more as it takes to show that there is something."""
    return f"{amount:,.2f}" if amount == 0 or amount >= 1 else f"{amount:,.6f}"


def iso_moment(moment_s: float | None) -> str | None:
    if moment_s is None:
        return None
    return datetime.datetime.fromtimestamp(moment_s, datetime.UTC).isoformat(timespec="seconds")
