"""Elementwise steps of a transformer whose derivative is written down, not recorded operation by operation.

On small models such steps cost as much as the matrix products: what autograd records for one RMS norm or one rotary
turn passes over the activations about ten times on the way back, each time into new memory. Here each takes as few
passes as its formula allows, and goes on in the memory it has. Values and gradients equal the stock modules' (tested).
"""

from __future__ import annotations

import torch
from torch.autograd.function import FunctionCtx
from transformers.activations import SiLUActivation
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLMLP, Qwen2_5_VLRMSNorm


def normalised(norm: Qwen2_5_VLRMSNorm, x: torch.Tensor) -> torch.Tensor:
    """RMS norm of (..., width) with a stock module's weight and epsilon: x / sqrt(mean(x^2) + eps) * weight.

    In another precision than fp32 the module itself is called: it works in fp32 and casts back.
    """
    if x.dtype != torch.float32 or norm.weight.dtype != torch.float32:
        return norm(x)
    if not torch.is_grad_enabled():
        return (x * _scale(x, norm.variance_epsilon)).mul_(norm.weight)
    return RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _scale(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """1 / sqrt(mean(x^2) + eps), (..., 1)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # the one reduction that needs no copy of x
    return torch.rsqrt(length * length / x.shape[-1] + epsilon)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: (x1 cos1 - x2 sin1, x2 cos2 + x1 sin2) for the two halves x1, x2 of (..., head size).

    `cos`, `sin`: such that they can be broadcast to `x`; they get no gradient.
    """
    return Rotary.apply(x, cos, sin) if torch.is_grad_enabled() else _turn(x, cos, sin)


def gated(mlp: Qwen2_5_VLMLP, x: torch.Tensor) -> torch.Tensor:
    """A stock module's down(silu(gate(x)) * up(x)); where no derivative is wanted, in as little memory as it takes."""
    if torch.is_grad_enabled() or not isinstance(mlp.act_fn, SiLUActivation):
        return mlp(x)
    return mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(x), inplace=True).mul_(mlp.up_proj(x)))


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool = False) -> torch.Tensor:
    """`turned` without a derivative, or the transposed turn: (g1 cos1 + g2 sin2, g2 cos2 - g1 sin1).

    Slices rather than chunks: `torch.func` forbids to change one of several views in place.
    """
    half = x.shape[-1] // 2
    first, second = slice(None, half), slice(half, None)
    out = x * cos  # the one new tensor; both halves are then added to where they stand
    out[..., first].add_(x[..., second] * sin[..., second if back else first], alpha=1 if back else -1)
    out[..., second].add_(x[..., first] * sin[..., first if back else second], alpha=-1 if back else 1)
    return out


class RMSNorm(torch.autograd.Function):
    """RMS norm as one autograd function."""

    generate_vmap_rule = True  # `torch.func` maps over samples

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """y = x r w with the scale r = 1 / sqrt(mean(x^2) + eps)."""
        return (x * _scale(x, epsilon)).mul_(weight)

    @staticmethod
    def setup_context(context: FunctionCtx, inputs: tuple, output: torch.Tensor) -> None:
        """Keep what the derivative needs (not the scale: second derivatives would take it for a constant)."""
        context.save_for_backward(*inputs[:2])
        context.epsilon = inputs[2]

    @staticmethod
    def backward(context: FunctionCtx, grad: torch.Tensor) -> tuple:
        """With n = x r: dx = r (g w - n mean(g w n)), dw = sum(g n)."""
        x, weight = context.saved_tensors
        scale = _scale(x, context.epsilon)  # anew, as a function of x, so that second derivatives are right
        unit = x * scale
        both = grad * unit
        # y depends on x through n alone; r's own derivative takes away the part of g w that points along n.
        mean = (both @ weight)[..., None] / x.shape[-1]
        down = (grad * weight).sub_(unit * mean).mul_(scale)
        return down, both.reshape(-1, both.shape[-1]).sum(0), None


class Rotary(torch.autograd.Function):
    """Rotary positions as one autograd function."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """`turned`."""
        return _turn(x, cos, sin)

    @staticmethod
    def setup_context(context: FunctionCtx, inputs: tuple, output: torch.Tensor) -> None:
        """Keep what the derivative needs."""
        context.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(context: FunctionCtx, grad: torch.Tensor) -> tuple:
        """The transposed turn."""
        return _turn(grad, *context.saved_tensors, back=True), None, None
