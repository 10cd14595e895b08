"""RMS norm and rotary turn with written derivatives: values and gradients equal the stock modules'."""

from types import SimpleNamespace

import pytest
import torch
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as stock

from helpers.model import fused


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def norm(width: int) -> stock.Qwen2_5_VLRMSNorm:
    module = stock.Qwen2_5_VLRMSNorm(width, eps=1e-3)
    module.weight.data = 1 + 0.1 * drawn(width)
    return module


def with_gradients(function, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The value and the gradients of a weighted sum of it."""
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    value = function(*inputs)
    (value * drawn(*value.shape)).sum().backward()
    return [value.detach(), *(t.grad for t in inputs)]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (1, 8)])
def test_rms_norm_equals_the_stock_module(shape: tuple[int, ...]) -> None:
    module, x = norm(8), drawn(*shape)
    with_weight = lambda f: lambda x, w: torch.func.functional_call(f, {"weight": w}, (x,))  # noqa: E731

    class Ours(stock.Qwen2_5_VLRMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return fused.normalised(self, x)

    ours = Ours(8, eps=1e-3)
    found = with_gradients(with_weight(ours), x, module.weight)
    assert_same(found, with_gradients(with_weight(module), x, module.weight))


def test_rms_norm_by_hand() -> None:
    module = stock.Qwen2_5_VLRMSNorm(2, eps=0.0)
    module.weight.data = torch.tensor([1.0, 10.0])
    found = fused.normalised(module, torch.tensor([[3.0, 4.0]]))  # root mean square: sqrt(12.5)
    torch.testing.assert_close(found.detach(), torch.tensor([[3.0, 40.0]]) / 12.5**0.5)


def test_derivatives_agree_with_differences_in_double_precision() -> None:
    x, weight = drawn(3, 4).double().requires_grad_(), (1 + drawn(4)).double().requires_grad_()
    angle = drawn(3, 2).double().repeat(1, 2)
    assert torch.autograd.gradcheck(lambda a, w: fused.RMSNorm.apply(a, w, 1e-3), (x, weight))
    assert torch.autograd.gradcheck(lambda a: fused.turned(a, angle.cos(), angle.sin()), (x,))
    assert torch.autograd.gradgradcheck(lambda a, w: fused.RMSNorm.apply(a, w, 1e-3), (x, weight))


def test_the_turn_equals_the_stock_one_and_keeps_lengths() -> None:
    x, angle = drawn(5, 3, 8), drawn(5, 4).repeat(1, 2)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    expected = with_gradients(lambda t: t * cos + stock.rotate_half(t) * sin, x)
    found = with_gradients(lambda t: fused.turned(t, cos, sin), x)
    assert_same(found, expected)
    torch.testing.assert_close(found[0].norm(dim=-1), x.norm(dim=-1))


def test_without_gradients_the_values_are_the_same() -> None:
    module, x, angle = norm(8), drawn(5, 8), drawn(5, 4).repeat(1, 2)
    with torch.no_grad():
        plain = fused.normalised(module, x), fused.turned(x, angle.cos(), angle.sin())
    torch.testing.assert_close(plain[0], fused.normalised(module, x).detach())
    torch.testing.assert_close(plain[1], fused.turned(x.requires_grad_(), angle.cos(), angle.sin()).detach())


def test_half_precision_goes_through_the_module() -> None:
    module, x = norm(8).bfloat16(), drawn(5, 8).bfloat16()
    assert torch.equal(fused.normalised(module, x), module(x))


def test_torch_func_sees_through_both() -> None:
    module, x, angle = norm(4), drawn(6, 4), drawn(2).repeat(2)

    def ours(row: torch.Tensor) -> torch.Tensor:
        normed = fused.turned(fused.normalised(module, row), angle.cos(), angle.sin())
        return (normed**3).sum()

    def plain(row: torch.Tensor) -> torch.Tensor:
        normed = module(row)
        normed = normed * angle.cos() + stock.rotate_half(normed) * angle.sin()
        return (normed**3).sum()

    found, expected = (torch.func.vmap(torch.func.grad(f))(x) for f in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_gated_equals_the_stock_module_with_and_without_derivative(act: str) -> None:
    module = stock.Qwen2_5_VLMLP(SimpleNamespace(hidden_size=4, intermediate_size=6, hidden_act=act), bias=True)
    x = drawn(5, 4)
    kept = x.clone()
    torch.testing.assert_close(fused.gated(module, x), module(x), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(fused.gated(module, x), module(x), rtol=0, atol=0)
    torch.testing.assert_close(x, kept, rtol=0, atol=0)
