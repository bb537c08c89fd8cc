"""Recorded work: a replay is what the work makes of the latest inputs, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mrdiff import Denoiser, MRProcess, Restorer, TabulatedTheta, make_sampler
from mrdiff.diffusion.parameterization import DATA, NOISE
from mrdiff.networks import UNet
from mrdiff.restoration.graphs import GraphedDenoiser, Graphs, sample
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.solvers.noise import named_noise
from mrdiff.system.names import SAMPLERS
from tests.networks.test_official import features, small


class Frozen:
    """Answers as a graph does, from copies of its inputs; the first ones are gone by and by."""

    def __init__(self, work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self.work, self.mine, self.theirs = work, [given.clone() for given in inputs], inputs

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for mine, given in zip(self.mine, inputs, strict=True):
            mine.copy_(given)
        if inputs[0] is not self.theirs[0]:
            for given in self.theirs:
                given.fill_(torch.nan)
        return self.work(*self.mine).clone()


class Recorder:
    """Counts what is recorded, or refuses to."""

    def __init__(self, *, error: Exception | None = None, spoil: bool = True) -> None:
        self.count, self.error, self.spoil = 0, error, spoil

    def __call__(self, work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Frozen:
        self.count += 1
        if self.error is not None:
            raise self.error
        return Frozen(work, inputs if self.spoil else [given.clone() for given in inputs])


def model(**options: Any) -> Denoiser:
    generator = torch.Generator().manual_seed(0)
    network = UNet(widths=(4, 8), encoder=(1,), middle=1, decoder=(1,), time_width=8, **options)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return Denoiser(network.eval(), MRProcess(), DATA)


def photo(seed: int, height: int = 24, width: int = 20) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_replayed_restoration_is_the_eager_one(name: str) -> None:
    """For other photos, other noise and another task than those that were recorded."""
    plain = Restorer(model(tasks=("a", "b"), mask=True), sampler=name, nfe=4)
    graphed = Restorer(plain.denoiser, sampler=name, nfe=4)
    graphed.graphs = Graphs(capture=(recorder := Recorder()), device_type="cpu")
    for i in range(6):
        mask = (photo(9 + i)[:, :1] > 0.2).float()
        plain.task = graphed.task = "ab"[i % 2]
        expected = plain.restore(photo(i), [str(i)], mask=mask)
        assert torch.equal(graphed.restore(photo(i), [str(i)], mask=mask), expected)
        assert torch.isfinite(expected).all()
    assert recorder.count == 1


def test_each_size_and_sampler_has_its_own_and_the_oldest_goes() -> None:
    restorer = Restorer(model(), nfe=2)
    restorer.graphs = Graphs(capture=(recorder := Recorder()), device_type="cpu")

    def often(height: int, times: int = 4) -> int:
        before = recorder.count
        for i in range(times):
            restorer.restore(photo(i, height), ["x"])
        return recorder.count - before

    assert [often(8 + i) for i in range(8)] == [1] * 8
    assert often(8) == 0
    assert often(99) == 1
    assert (often(8), often(9)) == (0, 1)
    restorer.sampler = make_sampler("mr-sde-2", nfe=2)
    assert often(99) == 1
    restorer.sampler.nfe = 3
    assert often(99) == 1


def test_more_sizes_than_are_kept_are_recorded_more_and_more_rarely() -> None:
    graphs = Graphs(capture=(recorder := Recorder(spoil=False)), device_type="cpu")
    for i in range(20 * 9):
        graphs("key", torch.neg, photo(0, 8 + i % 9))
    assert recorder.count <= 9 * 4  # after 2, 4, 8 images of a size; not with each


def test_a_run_that_found_no_memory_says_nothing_of_its_noise() -> None:
    graphs = Graphs(capture=(recorder := Recorder(spoil=False)), device_type="cpu")
    sampler, denoiser, noise = make_sampler("mr-sde-1", nfe=3), model(), named_noise(0, ["x"])

    def failing(step: int, shape: Sequence[int], out: Tensor | None = None) -> Tensor:
        if step:
            raise torch.OutOfMemoryError
        return noise(step, shape)

    with torch.no_grad():
        with pytest.raises(torch.OutOfMemoryError):
            sample(graphs, sampler, denoiser, photo(0), failing, None)
        for i in range(4):
            restored = sample(graphs, sampler, denoiser, photo(i), noise, None)
            assert torch.equal(restored, sampler(denoiser, photo(i), noise))
    assert recorder.count == 1


def test_another_networks_weights_are_not_read_from_old_places() -> None:
    restorer = Restorer(model(), nfe=2)
    restorer.graphs = Graphs(capture=(recorder := Recorder()), device_type="cpu")
    for _ in range(4):
        before = restorer.restore(photo(0), ["x"])
    for parameter in restorer.denoiser.parameters():
        parameter.data = parameter.data * 1.1
    for _ in range(4):
        after = restorer.restore(photo(0), ["x"])
    assert recorder.count == 2
    assert not torch.equal(before, after)


@pytest.mark.parametrize("batch", [1, 2])
def test_tiles_are_replayed(batch: int) -> None:
    """One recording for all times and tiles of one size, and for the next photo too."""
    denoiser = model(tasks=("a", "b"))
    context = {"task": torch.tensor([[0.2, 0.8]]).repeat(batch, 1)}
    graphs = Graphs(capture=(recorder := Recorder(spoil=False)), device_type="cpu")
    noise = named_noise(0, "ab"[:batch])
    sampler = make_sampler("mr-sde-1", nfe=3)
    for i in range(2):
        mu = photo(i, 112, 80).repeat(batch, 1, 1, 1)
        ways = (denoiser, GraphedDenoiser(denoiser, graphs))
        plain, replayed = (
            sampler(TiledDenoiser(each, 48, 16, context=context), mu, noise) for each in ways
        )
        torch.testing.assert_close(replayed, plain, atol=1e-5, rtol=0)
    assert recorder.count == 1


def test_what_cannot_be_recorded_is_done_as_it_is_with_one_warning() -> None:
    plain, restorer = (Restorer(model(), nfe=2) for _ in range(2))
    error = RuntimeError("operation not permitted when stream is capturing\nand so on")
    restorer.graphs = Graphs(capture=(recorder := Recorder(error=error)), device_type="cpu")
    images = [photo(i, 8 + i % 2) for i in range(10)]
    with pytest.warns(UserWarning, match="runs without: operation not permitted") as told:
        restored = [restorer.restore(image, ["x"]) for image in images]
    assert all(map(torch.equal, restored, (plain.restore(image, ["x"]) for image in images)))
    assert len(told) == 1
    assert recorder.count == 2  # one for each size


def test_without_memory_for_a_recording_the_others_give_theirs_back() -> None:
    restorer = Restorer(model(), nfe=2)
    restorer.graphs = graphs = Graphs(capture=(recorder := Recorder()), device_type="cpu")
    for i in range(4):
        restorer.restore(photo(i, 8), ["x"])
    recorder.error = torch.OutOfMemoryError("CUDA out of memory")
    for i in range(4):
        restorer.restore(photo(i, 12), ["x"])
    recorder.error = None
    restorer.restore(photo(0, 8), ["x"])
    assert recorder.count == 3
    graphs.clear()


def test_previews_and_large_photos_are_not_recorded() -> None:
    graphs = Graphs(capture=(recorder := Recorder()), device_type="cpu")
    assert graphs.take(photo(0))
    assert not graphs.take(torch.empty(1).expand(1, 3, 2048, 2049))
    restorer = Restorer(model(), nfe=2)
    restorer.graphs = graphs
    for i in range(5):
        seen: list[int] = []
        restorer.restore(photo(i), ["x"], callback=lambda step, nfe, x0: seen.append(step))  # noqa: B023
        assert seen == [1, 2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not graphs.take(photo(0))
    assert recorder.count == 0


class Uploads(TorchDispatchMode):
    """Finds what mixes tensors of the host with those of a device, which has no values here."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [
            x.device.type for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)
        ]
        if {"cpu", "meta"} <= {*given}:
            self.found.append(str(func))
        return result


def recorded_models() -> Iterator[tuple[str, Denoiser, dict[str, Tensor] | None]]:
    """Every sampler with a small network, and every network with one sampler."""
    for name in SAMPLERS:
        yield name, model(), None
    task = torch.tensor([[0.3, 0.7]])
    yield "mr-sde-2", model(tasks=("a", "b"), mask=True), {"task": task}
    process = MRProcess(TabulatedTheta.irsde("cosine"))
    for name in ("irsde", "refusion", "daclip"):
        given = features(1) if name == "daclip" else None
        yield "mr-ode-2", Denoiser(small(name).eval(), process, NOISE), given


@torch.no_grad()
def test_nothing_in_a_recorded_run_comes_from_the_host() -> None:
    """A graph would read the host's memory again when it is long another's: hence NaN."""
    recorded = list[list[str]]()

    def watch(work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Frozen:
        with Uploads() as uploads:
            work(*inputs)  # reading a value, in order to wait for it, would be an error
        recorded.append(uploads.found)
        return Frozen(lambda *given: given[0], inputs)

    for name, denoiser, context in recorded_models():
        given = {key: value.to("meta") for key, value in (context or {}).items()} or None
        graphs, mu = Graphs(capture=watch, device_type="meta"), photo(0, 16, 16).to("meta")
        run = partial(sample, graphs, make_sampler(name, nfe=2), denoiser.to("meta"))
        for _ in range(3):
            run(mu, lambda _, shape: torch.empty(shape, device="meta"), given)
    assert recorded == [[]] * (len(SAMPLERS) + 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["mr-ode-2", "mr-sde-2", "fidelity"])
def test_cudas_own_graphs_give_the_eager_numbers_though_memory_is_reused(name: str) -> None:
    plain = Restorer(model(tasks=("a", "b")).cuda(), sampler=name, nfe=4)
    plain.graphs = Graphs(device_type="none")
    graphed = Restorer(plain.denoiser, sampler=name, nfe=4)
    for i in range(8):
        image = photo(i, 64 + 8 * (i % 2), 64)
        restored = graphed.restore(image, [str(i)])
        spoiled = [torch.full((1 << 20,), torch.nan, device="cuda") for _ in range(64)]
        assert torch.equal(restored, plain.restore(image, [str(i)]))
        del spoiled
