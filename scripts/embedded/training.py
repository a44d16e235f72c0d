"""The training loop: workers of one thread each share the parameters, and step together.

A step's batch has a fixed number of parts. Each worker takes its parts, adds their gradients up in its own buffer, and
then updates its own part of the parameters from the sum of all buffers, in a fixed order. A checkpoint holds all that
a step reads, so that a training that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from embedded.batches import BatchStream
from embedded.mixtral import initialise, losses, parameter_shapes
from embedded.optimiser import Optimiser, OptimiserConfig, state_names
from embedded.rendering import Renderer
from swarm.release import ModelArgs

STEP_TIMEOUT_S = 300.0
"""A worker that waits longer than this for another gives up: the other has died."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """n_parts: batches in a step, whoever computes them. warmup, decay: shares of the first steps, linear in between.

    n_first_steps: from nothing, on the corpus as it is. n_focus_steps: after them, at rates that begin at focus_rate
    and come down once more, with more of the kinds that are hard.
    balance: weight of the load-balancing loss. router_z: weight of the router's z-loss.
    """

    n_first_steps: int = 1800
    n_focus_steps: int = 350
    n_parts: int = 2
    rows_per_part: int = 4096
    seed: int = 0
    warmup: float = 0.03
    decay: float = 0.6
    balance: float = 0.03
    router_z: float = 1e-3
    focus_rate: float = 0.5
    checkpoint_every: int = 100

    @property
    def n_steps(self) -> int:
        return self.n_first_steps + self.n_focus_steps

    def is_focused(self, step_idx: int) -> bool:
        return step_idx >= self.n_first_steps

    def schedule(self, step_idx: int) -> float:
        """The factor of the learning rates at this step: up, level, and down to nearly nothing; then down again."""
        if self.is_focused(step_idx):
            return max(0.01, self.focus_rate * (self.n_steps - step_idx) / self.n_focus_steps)
        n_warmup = max(1, round(self.warmup * self.n_first_steps))
        n_decay = max(1, round(self.decay * self.n_first_steps))
        return min(1.0, (step_idx + 1) / n_warmup, max(0.01, (self.n_first_steps - step_idx) / n_decay))


@dataclass(frozen=True, slots=True)
class Report:
    """One step as measured: losses in nats, tokens that were read, seconds since the training began or went on."""

    step_idx: int
    cross_entropy: float
    balance: float
    n_tokens: int
    elapsed_s: float


class SharedState:
    """Parameters, optimiser state, and a gradient buffer per worker: flat fp32 buffers in shared memory."""

    def __init__(self, args: ModelArgs, n_workers: int) -> None:
        shapes = parameter_shapes(args)
        state_shapes = {name: shape for key, shape in shapes.items() for name in state_names(key)}
        self.parameters = _shared(shapes)
        self.state = _shared(state_shapes)
        self.gradients = [_shared(shapes) for _ in range(n_workers)]
        self.measured = torch.zeros(n_workers, 3).share_memory_()  # sums of cross entropy, balance, tokens

    def save(self, path: Path, step_idx: int, config: TrainingConfig) -> None:
        """Atomic: a reader finds the old checkpoint or the new one."""
        tensors = {f"parameter/{name}": tensor for name, tensor in self.parameters.items()}
        tensors |= {f"state/{name}": tensor for name, tensor in self.state.items()}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"step": str(step_idx), "config": json.dumps(asdict(config))})
        partial.replace(path)

    def load(self, path: Path, config: TrainingConfig) -> int:
        """The step to go on with. Raises: ValueError if the checkpoint was made with another config."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata["config"] != json.dumps(asdict(config)):
                raise ValueError(f"{path} was made with other settings; repeat them, or choose another --work folder")
            for name, tensor in self.parameters.items():
                tensor.copy_(file.get_tensor(f"parameter/{name}"))
            for name, tensor in self.state.items():
                tensor.copy_(file.get_tensor(f"state/{name}"))
            return int(metadata["step"])


def train(
    args: ModelArgs,
    config: TrainingConfig,
    tokenizer_path: Path,
    checkpoint: Path,
    n_workers: int,
    report: Callable[[Report], None],
    stop: threading.Event,
) -> bool:
    """Trains from the checkpoint, or from the beginning; whether it came to the end (False: stopped in between).

    Writes the checkpoint every config.checkpoint_every steps, when stopped, and at the end. Raises: ValueError for a
    checkpoint of other settings; RuntimeError if a worker died.
    """
    shared = SharedState(args, n_workers)
    if checkpoint.exists():
        first_step = shared.load(checkpoint, config)
    else:
        initialise(args, shared.parameters, config.seed)
        first_step = 0
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_workers, timeout=STEP_TIMEOUT_S)
    is_stopping = context.Value("b", False)
    others = [
        context.Process(
            target=_work,
            args=(args, config, tokenizer_path, shared, barrier, is_stopping, worker_idx, n_workers, first_step),
            daemon=True,
        )
        for worker_idx in range(1, n_workers)
    ]
    for process in others:
        process.start()
    began_s = time.monotonic()

    def after_step(step_idx: int) -> None:
        cross_entropy, balance, n_tokens = shared.measured.sum(0).tolist()
        report(
            Report(
                step_idx,
                cross_entropy / config.n_parts,
                balance / config.n_parts,
                int(n_tokens),
                time.monotonic() - began_s,
            )
        )
        if (step_idx + 1) % config.checkpoint_every == 0 or stop.is_set() or step_idx + 1 == config.n_steps:
            shared.save(checkpoint, step_idx + 1, config)
        if stop.is_set():
            is_stopping.value = True

    try:
        _work(args, config, tokenizer_path, shared, barrier, is_stopping, 0, n_workers, first_step, after_step)
    except threading.BrokenBarrierError as error:
        raise RuntimeError("a training worker died or hangs; its last words are above") from error
    finally:
        barrier.abort()
        for process in others:
            process.join(10.0)
            if process.is_alive():
                process.kill()
    return not is_stopping.value


def load_parameters(args: ModelArgs, checkpoint: Path) -> dict[str, Tensor]:
    with safe_open(checkpoint, framework="pt") as file:
        return {name: file.get_tensor(f"parameter/{name}") for name in parameter_shapes(args)}


def _work(
    args: ModelArgs,
    config: TrainingConfig,
    tokenizer_path: Path,
    shared: SharedState,
    barrier: threading.Barrier,
    is_stopping: object,
    worker_idx: int,
    n_workers: int,
    first_step: int,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """One worker's whole life. Worker 0 reports and saves while the others wait at the barrier."""
    torch.set_num_threads(1)
    stream = BatchStream(Renderer(tokenizer_path), config.seed, config.rows_per_part)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in shared.parameters.items()}
    gradients = shared.gradients[worker_idx]
    optimiser = Optimiser(OptimiserConfig(), shared.parameters, shared.state)
    own_parts = range(worker_idx, config.n_parts, n_workers)
    for step_idx in range(first_step, config.n_steps):
        _gradients(args, config, stream, leaves, gradients, shared.measured[worker_idx], step_idx, own_parts)
        barrier.wait()
        with torch.no_grad():
            total = _sum(shared.gradients)
            optimiser.step(total, step_idx, config.schedule(step_idx), worker_idx, n_workers)
        barrier.wait()
        if after_step is not None:
            after_step(step_idx)
        barrier.wait()
        if is_stopping.value:  # type: ignore[attr-defined]
            return


def _gradients(
    args: ModelArgs,
    config: TrainingConfig,
    stream: BatchStream,
    leaves: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    measured: Tensor,
    step_idx: int,
    parts: range,
) -> None:
    """Fills this worker's buffers with the mean gradient's share of its parts."""
    measured.zero_()
    for name, leaf in leaves.items():
        gradients[name].zero_()
        leaf.grad = gradients[name]
    for part in parts:
        batch = stream.batch(step_idx, part, is_focused=config.is_focused(step_idx))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lost = losses(args, leaves, batch)
        loss = lost.cross_entropy + config.balance * lost.balance + config.router_z * lost.router_z
        (loss / config.n_parts).backward()
        measured += torch.tensor(
            [float(lost.cross_entropy.detach()), float(lost.balance.detach()), float(batch.is_real.sum())]
        )


def _sum(buffers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(buffers) == 1:
        return buffers[0]
    return {name: torch.stack([buffer[name] for buffer in buffers]).sum(0) for name in buffers[0]}


def _shared(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    flat = torch.zeros(sum(math.prod(shape) for shape in shapes.values())).share_memory_()
    pieces = flat.split([math.prod(shape) for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
