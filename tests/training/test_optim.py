"""The optimizer of the recipes: what orthogonalised momentum does to each kind of weight."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mrdiff.networks import UNet
from mrdiff.training.optim import Muon, _iterated, orthogonalised
from tests.operations import Count

sides = st.integers(1, 24)


def drawn(rows: int, columns: int, seed: int) -> Tensor:
    """A matrix with singular values of one octave: none is tiny."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(
        torch.randn(rows, columns, generator=generator, dtype=torch.float64), full_matrices=False
    )
    values = 1 + torch.rand(len(v), generator=generator, dtype=torch.float64)
    return u @ values.diag() @ v


def iterated(matrix: Tensor) -> Tensor:
    """The iteration as Jordan et al. write it, on the matrix itself."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def alone(matrix: Tensor) -> Tensor:
    """One matrix, wide or tall."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found = orthogonalised([wide[None]])[0][0]
    return found if wide is matrix else found.T


@given(sides, sides, st.integers(0, 99))
def test_orthogonalised_keeps_the_directions_and_levels_the_values(
    rows: int, columns: int, seed: int
) -> None:
    matrix = drawn(rows, columns, seed)
    found = alone(matrix)
    assert found.shape == matrix.shape
    torch.testing.assert_close(found.double(), iterated(matrix), rtol=1e-3, atol=1e-3)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ found.double() @ v.T  # diagonal, if the singular vectors are the same
    off = turned - turned.diagonal().diag()
    assert off.abs().max() < 1e-3


def test_tiny_singular_values_stay_finite_and_nothing_stays_nothing() -> None:
    steep = torch.randn(16, 40) * torch.logspace(0, -8, 40)
    for stack in (steep[None], 1e-15 * steep[None]):
        for found in (*orthogonalised([stack]), *_iterated([stack])):
            assert torch.linalg.svdvals(found).max() < 1.3
    for found in (*orthogonalised([torch.zeros(1, 3, 5)]), *_iterated([torch.zeros(1, 3, 5)])):
        assert not found.any()


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(6, 12)), min_size=1, max_size=4))
def test_stacks_of_any_width_are_turned_as_each_matrix_alone(shapes: list[tuple[int, int]]) -> None:
    stacks = [
        torch.stack([drawn(6, width, 7 * i + width) for i in range(count)])
        for count, width in shapes
    ]
    exact = [torch.stack([iterated(matrix) for matrix in stack]).float() for stack in stacks]
    for found, rough, expected in zip(
        orthogonalised(stacks), _iterated([s.float() for s in stacks]), exact, strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert rough.shape == expected.shape
        assert (rough - expected).norm() < 0.1 * expected.norm()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.LazyLinear(2)
    )


def batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(4, 3, 6, 6, generator=generator)


def ready() -> nn.Sequential:
    made = network()
    made(next(batches()))
    return made


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, images: list[Tensor]) -> None:
    for image in images:
        optimizer.zero_grad()
        model(image).square().mean().backward()
        optimizer.step()


def test_a_kernel_moves_by_a_fifth_of_its_rate_in_every_direction() -> None:
    kernel = nn.Parameter(torch.randn(6, 5, 3, 3))
    before = kernel.detach().clone()
    kernel.grad = torch.randn_like(kernel) * torch.logspace(0, -3, 5)[:, None, None]
    Muon([kernel], lr=0.1, momentum=0.9).step()
    moved = (before - kernel).detach().flatten(1)
    values = torch.linalg.svdvals(moved) / (0.1 * 0.2 * 45**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # A matrix of 6 orthonormal rows of 45: its entries have the size sqrt(1 / 45).
    assert moved.square().mean().sqrt() == pytest.approx(0.02, rel=0.35)


def test_all_other_weights_move_as_under_adam() -> None:
    ours, theirs = ready(), ready()
    convolutions = {"0.weight", "2.weight"}
    steps(ours, Muon(ours.parameters(), lr=0.0, adam_lr=0.01), images := [next(batches())] * 3)
    rest = [p for name, p in theirs.named_parameters() if name not in convolutions]
    steps(theirs, torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.99), weight_decay=0), images)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=name)


class Reference:
    """The optimizer of the recipes, one weight at a time."""

    def __init__(self, weights: Sequence[Tensor], *, lr: float, adam_lr: float) -> None:
        self.kernels = [w for w in weights if w.ndim == 4 and w.numel() > len(w) > 1]
        others = [w for w in weights if all(w is not k for k in self.kernels)]
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0)
        self.averages = [torch.zeros_like(kernel) for kernel in self.kernels]
        self.lr = lr

    @torch.no_grad()
    def step(self) -> None:
        for kernel, average in zip(self.kernels, self.averages, strict=True):
            if kernel.grad is None:
                continue
            average.lerp_(kernel.grad, 0.05)
            matrix = torch.lerp(kernel.grad, average, 0.95).double().flatten(1)
            turned = iterated(matrix) if len(matrix) <= matrix.shape[1] else iterated(matrix.T).T
            size = 0.2 * max(matrix.shape) ** 0.5
            kernel.sub_(self.lr * size * turned.view(kernel.shape))
        self.adam.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_that_of_every_weight_alone(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3), (8, 4, 3, 3), (8, 8, 1, 1), (24, 8, 1, 1), (8, 2, 2, 2), (5, 3, 3, 3)]
    drawn = [torch.randn(shape).to(memory_format=layout) for shape in [*shapes, (1, 8, 1, 1)]]
    ours = [nn.Parameter(weight) for weight in (*drawn, torch.randn(8))]
    theirs = [weight.detach().clone() for weight in ours]
    optimizer, reference = Muon(ours), Reference(theirs, lr=4e-3, adam_lr=1.5e-3)
    for step in range(4):
        for index, (weight, other) in enumerate(zip(ours, theirs, strict=True)):
            # One kernel is left out at times: it neither moves nor forgets.
            weight.grad = None if index == step == 1 else torch.randn_like(weight)
            other.grad = weight.grad
        optimizer.step()
        reference.step()
        for weight, other in zip(ours, theirs, strict=True):
            assert (weight - other).norm() <= 1e-5 * other.norm()
    assert [set(optimizer.state[weight]) for weight in ours[:2]] == [{"momentum"}] * 2


def test_a_step_is_few_operations() -> None:
    recipe = UNet(widths=(32, 64, 96, 160), encoder=(1, 1, 1), middle=2, decoder=(1, 1, 1))
    weights = list(recipe.to(memory_format=torch.channels_last).parameters())  # type: ignore[call-overload]
    optimizer = Muon(weights)
    shapes = {tuple(w.flatten(1).shape) for w in optimizer.param_groups[0]["params"]}
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    with Count() as count:
        optimizer.step()
    assert count.seen.total() <= 60 + 20 * len(shapes)
    assert not count.seen["aten._local_scalar_dense.default"]


def test_momentum_is_nesterovs() -> None:
    kernel = nn.Parameter(torch.zeros(2, 2, 1, 1))
    optimizer = Muon([kernel], lr=1.0, momentum=0.75)
    first, second = torch.randn(2, 2), torch.randn(2, 2)
    average, expected = torch.zeros(2, 2), torch.zeros(2, 2)
    for gradient in (first, second):
        average = 0.75 * average + 0.25 * gradient
        look = 0.25 * gradient + 0.75 * average
        expected = expected - 0.2 * 2**0.5 * iterated(look)
        kernel.grad = gradient[:, :, None, None].clone()
        optimizer.step()
    torch.testing.assert_close(kernel.detach().flatten(1), expected, rtol=1e-4, atol=1e-4)


def test_gradients_survive_a_step_and_weights_without_one_stay() -> None:
    model = ready()
    still = model[2]
    assert isinstance(still, nn.Conv2d)
    still.weight.requires_grad_(False)
    before = still.weight.clone()
    optimizer = Muon(model.parameters())
    model(next(batches())).square().mean().backward()
    gradients = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}
    optimizer.step()
    assert torch.equal(still.weight, before)
    assert still.weight not in gradients
    for weight, gradient in gradients.items():
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient)


def test_the_closure_is_called_once_with_gradients() -> None:
    model, calls = ready(), []
    optimizer = Muon(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(next(batches())).square().mean()
        loss.backward()
        calls.append(float(loss.detach()))
        return loss

    assert float(optimizer.step(closure).detach()) == calls[0]
    assert len(calls) == 1


def test_hooks_run_once_a_step() -> None:
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # whose class is hooked from now on
    model, calls = ready(), []
    optimizer = Muon(model.parameters())
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    steps(model, optimizer, [next(batches())] * 2)
    assert calls == ["before", "after"] * 2


def test_a_resumed_optimizer_goes_on_as_if_it_had_not_stopped() -> None:
    stream = batches()
    images = [next(stream) for _ in range(6)]
    whole, model = ready(), ready()
    steps(whole, Muon(whole.parameters()), images)
    first = Muon(model.parameters())
    steps(model, first, images[:3])
    second = Muon(model.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(model, second, images[3:])
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_state_with_steps_of_kernels_on_which_adam_was_not_fused_can_be_resumed() -> None:
    images = [next(batches())] * 2
    first, second = ready(), ready()
    optimizer, resumed = Muon(first.parameters()), Muon(second.parameters())
    steps(first, optimizer, images)
    state = copy.deepcopy(optimizer.state_dict())
    for weight in state["state"].values():
        weight.setdefault("step", torch.tensor(2.0))
    for group in state["param_groups"]:
        group.update(fused=None, foreach=None, weight_decay=0.0)
    resumed.load_state_dict(state)
    second.load_state_dict(first.state_dict())
    steps(first, optimizer, images)
    steps(second, resumed, images)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_memory_format_changes_nothing() -> None:
    reference, model = ready(), ready()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = [next(batches())] * 2
    steps(reference, Muon(reference.parameters()), images)
    steps(model, Muon(model.parameters()), images)
    for a, b in zip(reference.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_gains_of_four_dimensions_are_no_kernels() -> None:
    gain = nn.Parameter(torch.ones(1, 6, 1, 1))
    kernel = nn.Parameter(torch.ones(6, 2, 1, 1))
    kernels, others = Muon([gain, kernel]).param_groups
    assert kernels["params"] == [kernel]
    assert others["params"] == [gain]


def test_networks_of_one_kind_of_weight_will_do() -> None:
    for layer in (nn.Linear(3, 2), nn.Conv2d(3, 2, 3, bias=False)):
        optimizer = Muon(layer.parameters())
        assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match="empty"):
        Muon([])


@pytest.mark.parametrize(
    "options",
    [{"momentum": 1.0}, {"momentum": -0.1}, {"lr": -1.0}, {"adam_lr": -1.0}, {"betas": (0.9, 1.0)}],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must (be in|not be negative)"):
        Muon(nn.Conv2d(3, 2, 3).parameters(), **options)
