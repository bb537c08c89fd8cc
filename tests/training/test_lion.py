"""Lion against its update rule, one number at a time."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mrdiff.training.optim import Lion
from tests.operations import Count


def by_hand(
    weight: float, gradients: list[float], *, lr: float, betas: tuple[float, float], decay: float
) -> float:
    """Algorithm 2 of Chen et al. 2023 on one number."""
    momentum = 0.0
    for gradient in gradients:
        blend = betas[0] * momentum + (1 - betas[0]) * gradient
        sign = (blend > 0) - (blend < 0)
        weight = weight - lr * (sign + decay * weight)
        momentum = betas[1] * momentum + (1 - betas[1]) * gradient
    return weight


shares = st.floats(0.0, 0.99)


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=8), shares, shares, st.sampled_from([0.0, 0.3])
)
def test_a_weight_moves_by_the_rule(
    gradients: list[float], look: float, keep: float, decay: float
) -> None:
    weight = nn.Parameter(torch.full((2, 3), 0.7, dtype=torch.float64))
    optimizer = Lion([weight], lr=0.01, betas=(look, keep), weight_decay=decay)
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    expected = by_hand(0.7, gradients, lr=0.01, betas=(look, keep), decay=decay)
    # Where the blend cancels to the last bit its sign is rounding: such a step may differ.
    blends = _blends(gradients, look, keep)
    if min(abs(blend) for blend in blends) > 1e-12 or not any(gradients):
        torch.testing.assert_close(weight.detach(), torch.full_like(weight, expected))


def _blends(gradients: list[float], look: float, keep: float) -> list[float]:
    momentum, found = 0.0, []
    for gradient in gradients:
        found.append(look * momentum + (1 - look) * gradient)
        momentum = keep * momentum + (1 - keep) * gradient
    return found


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 2, 1))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, images: list[Tensor]) -> None:
    for image in images:
        optimizer.zero_grad()
        (model(image) - 1).square().mean().backward()
        optimizer.step()


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 6, 6, generator=generator) for _ in range(count)]


def test_every_weight_of_a_network_moves_by_the_rate() -> None:
    model, still = network(), network()
    steps(model, Lion(model.parameters(), lr=1e-3), images(1))
    for moved, before in zip(model.parameters(), still.parameters(), strict=True):
        torch.testing.assert_close((moved - before).abs(), torch.full_like(moved, 1e-3))


def test_a_step_is_few_operations_however_many_weights() -> None:
    model = network()
    optimizer = Lion(model.parameters())
    steps(model, optimizer, images(1))
    with Count() as count:
        optimizer.step()
    operations = [name for name in count.seen.elements() if name.startswith("aten")]
    assert len(operations) == 5


def test_a_resumed_optimizer_goes_on_as_if_it_had_not_stopped() -> None:
    whole, model, batches = network(), network(), images(6)
    steps(whole, Lion(whole.parameters()), batches)
    first = Lion(model.parameters())
    steps(model, first, batches[:3])
    second = Lion(model.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(model, second, batches[3:])
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_memory_format_changes_nothing_but_rounding() -> None:
    reference, model = network(), network()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps(reference, Lion(reference.parameters(), lr=1e-3), images(3))
    steps(model, Lion(model.parameters(), lr=1e-3), images(3))
    for a, b in zip(reference.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_without_a_gradient_stay_and_gradients_survive() -> None:
    model = network()
    frozen = model[0].weight
    assert isinstance(frozen, Tensor)
    frozen.requires_grad_(False)
    before = frozen.clone()
    optimizer = Lion(model.parameters(), weight_decay=0.1)
    optimizer.step()  # no gradient at all
    model(images(1)[0]).square().mean().backward()
    kept = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    optimizer.step()
    assert torch.equal(frozen, before)
    assert frozen not in optimizer.state
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(kept, after, strict=True))


def test_groups_have_rates_of_their_own_and_the_closure_is_called_once() -> None:
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = Lion([{"params": [one], "lr": 0.5}, {"params": [two]}], lr=0.1)  # type: ignore[list-item]
    calls = []

    def closure() -> Tensor:
        loss = (one + two - 1).sum()
        loss.backward()
        calls.append(loss)
        return loss

    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert one.tolist() == [-0.5, -0.5]
    torch.testing.assert_close(two.detach(), torch.full((2,), -0.1))


@pytest.mark.parametrize(
    "options",
    [{"lr": -1.0}, {"weight_decay": -0.1}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Lion(network().parameters(), **options)  # type: ignore[arg-type]
