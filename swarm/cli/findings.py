"""How findings look: one line each, and below it what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from swarm.cli.console import print_json
from swarm.terms import Finding

_ORDER = ("ok", "unknown", "note", "bad")


def worst(findings: Sequence[Finding]) -> str:
    """The state of the one that needs most attention; 'ok' of none."""
    return max((finding.state for finding in findings), key=_ORDER.index, default="ok")


def print_findings(schema: str, findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        print_json(schema, {"state": worst(findings), "findings": [asdict(finding) for finding in findings]})
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        click.echo(f"{finding.state:<8}{finding.name:<{width}}  {finding.says}")
        if finding.mend:
            click.echo(f"{'':<8}{'':<{width}}  mend it: {finding.mend}")
