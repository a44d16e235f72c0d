"""The loss over the steps, as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def plot_losses(log: Path, picture: Path) -> None:
    """Draws the log's losses, each step's and smoothed, and the balance of the experts below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_step = {}
    for line in log.read_text().splitlines():
        step = json.loads(line)
        by_step[step["step_idx"]] = step  # a training that went on from a checkpoint repeats some steps
    steps = sorted(by_step)
    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6), height_ratios=(3, 1))
    losses = [by_step[step]["cross_entropy"] for step in steps]
    upper.plot(steps, losses, linewidth=0.4, alpha=0.5)
    upper.plot(steps, smoothed(losses), linewidth=1.5)
    upper.set_yscale("log")
    upper.set_ylabel("loss on learned tokens, nats")
    lower.plot(steps, smoothed([by_step[step]["balance"] for step in steps]))
    lower.set_ylabel("balance (1: even)")
    lower.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def smoothed(values: list[float], inertia: float = 0.97) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out else inertia * out[-1] + (1 - inertia) * value)
    return out
