"""Muon for the matrices, AdamW for the rest, over flat buffers that several workers share.

Each worker updates its own part of every parameter group, so that the optimiser's work and memory are split, and the
result does not depend on how many there are. Sources: Muon (K. Jordan, 2024), its scale "Muon is Scalable for LLM
Training" (arXiv 2502.16982, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """Learning rates are multiplied by the schedule's value at each step."""

    matrix_lr: float = 6e-3
    other_lr: float = 4e-3
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02


def is_matrix(name: str) -> bool:
    """Whether Muon updates this parameter: hidden matrices, not embeddings, norms or routers."""
    return name.rpartition(".")[2] in ("wq", "wk", "wv", "wo", "w13", "w2")


class Optimiser:
    """state: one buffer per parameter and moment, of the parameter's shape, by the names of `state_names`."""

    def __init__(self, config: OptimiserConfig, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        self._config = config
        self._parameters = parameters
        self._state = state

    def step(self, gradients: Mapping[str, Tensor], step_idx: int, schedule: float, part: int, n_parts: int) -> None:
        """Updates part `part` of `n_parts` of the matrices' stacks and of the other parameters' rows."""
        stacks: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
        for name, parameter in self._parameters.items():
            gradient = gradients[name]
            if is_matrix(name):
                shape = parameter.shape[-2], parameter.shape[-1]
                pieces = zip(
                    parameter.view(-1, *shape),
                    gradient.view(-1, *shape),
                    self._state[f"{name}/momentum"].view(-1, *shape),
                    strict=True,
                )
                stacks.setdefault(shape, []).extend(pieces)
            else:
                self._adam(name, parameter, gradient, step_idx, schedule, part, n_parts)
        for stack in stacks.values():
            self._muon(stack[part::n_parts], schedule)

    def _adam(
        self, name: str, parameter: Tensor, gradient: Tensor, step_idx: int, schedule: float, part: int, n_parts: int
    ) -> None:
        beta1, beta2 = self._config.betas
        rows = slice(parameter.shape[0] * part // n_parts, parameter.shape[0] * (part + 1) // n_parts)
        grad = gradient[rows]
        mean = self._state[f"{name}/mean"][rows].lerp_(grad, 1 - beta1)
        square = self._state[f"{name}/square"][rows].lerp_(grad.square(), 1 - beta2)
        corrected = (square / (1 - beta2 ** (step_idx + 1))).sqrt_().add_(1e-9)
        lr = self._config.other_lr * schedule
        parameter[rows].addcdiv_(mean, corrected, value=-lr / (1 - beta1 ** (step_idx + 1)))

    def _muon(self, stack: Sequence[tuple[Tensor, Tensor, Tensor]], schedule: float) -> None:
        if not stack:
            return
        lr = self._config.matrix_lr * schedule
        momentum = self._config.momentum
        updates = []
        for _, gradient, buffer in stack:
            buffer.lerp_(gradient, 1 - momentum)
            updates.append(gradient.lerp(buffer, momentum))  # Nesterov's
        shape = updates[0].shape
        scale = 0.2 * math.sqrt(max(shape))
        for (parameter, _, _), update in zip(stack, orthogonalise(torch.stack(updates)), strict=True):
            parameter.mul_(1 - lr * self._config.weight_decay).add_(update, alpha=-lr * scale)


def state_names(name: str) -> tuple[str, ...]:
    return (f"{name}/momentum",) if is_matrix(name) else (f"{name}/mean", f"{name}/square")


def orthogonalise(matrices: Tensor, n_steps: int = 5) -> Tensor:
    """(N, R, C) fp32 -> about U V^T of each one's singular value decomposition U S V^T, by Newton-Schulz in bf16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.transpose(1, 2) if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)
    for _ in range(n_steps):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()
