"""The optimiser of pretraining: Muon, on a CPU without bfloat16 units."""

from __future__ import annotations

import torch


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with the orthogonalisation in fp32 and over stacks of equal shape.

    The library's step runs in bfloat16, which is 20 times slower on a CPU without bfloat16 units.
    """

    def __init__(self, parameters: list[torch.Tensor], rate: float) -> None:
        """Momentum 0.95 and weight decay 0.01, for 2-D parameters."""
        super().__init__(parameters, {"lr": rate})

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple, list] = {}
            for parameter in (p for p in group["params"] if p.grad is not None):
                shapes.setdefault(tuple(parameter.shape), []).append(parameter)
            # Matrices of one shape are one stack: the five rounds cost a small model more calls than arithmetic.
            for shape, alike in shapes.items():
                update = orthogonalise(torch.stack([self._momentum(p) for p in alike]))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]  # the RMS of an AdamW update (Moonshot, 2025)
                for parameter, change in zip(alike, update, strict=True):
                    parameter.mul_(1 - 0.01 * group["lr"]).sub_(change, alpha=scale)

    def _momentum(self, parameter: torch.Tensor) -> torch.Tensor:
        buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 0.05)
        return parameter.grad.lerp(buffer, 0.95)  # Nesterov: the step looks ahead along the new momentum


def orthogonalise(matrices: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Nearest semi-orthogonal matrices to a stack (N, rows, columns): quintic Newton-Schulz (Jordan, 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
