"""CUDA graphs: work that is the same again and again, launched as one.

A network of a few hundred small kernels keeps a GPU waiting for Python. Recorded once, with all
that a solver does between the calls, it is replayed at once for every further photo of that shape.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.path import Time
from mrdiff.diffusion.prediction import Output
from mrdiff.diffusion.wrappers import BoundDenoiser, DenoiserLike, DenoiserWrapper
from mrdiff.networks.protocol import Context
from mrdiff.solvers.noise import NamedNoise, NoiseSource
from mrdiff.solvers.run import Sampler
from mrdiff.system.memory import is_out_of_memory

__all__ = ["Capture", "GraphedDenoiser", "Graphs", "Recording", "sample"]

Work = Callable[..., Tensor]

_AFTER = 2  # a recording is two runs: work that comes once is not worth one
_MOST = 8  # recordings that are kept, each with memory of its own at its peak
_PIXELS = 1 << 22  # of larger images a kernel takes longer than its launch


class Recording(Protocol):
    """Work that was recorded on its inputs."""

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """The work's result for other inputs of the same shapes."""


Capture = Callable[[Work, Sequence[Tensor]], Recording]


class _CUDARecording:
    """A graph, its inputs and its result.

    The graph reads and writes addresses. What it is given lies outside the pool of memory that all
    graphs share and stays alive with it, as does, by ``work``, whatever else it reads. Its result
    is in the pool, where the next graph's replay may write: it is copied at once.
    """

    def __init__(self, work: Work, inputs: Sequence[Tensor], pool: Any, beside: Any) -> None:
        with torch.inference_mode(False):  # a replay may write them outside of it
            self._work, self._inputs = work, [given.clone() for given in inputs]
        now, self._graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        beside.wait_stream(now)
        mode = "thread_local"  # other threads read and write photos meanwhile
        try:
            with torch.cuda.stream(beside):  # which the inner context does not leave if it fails
                work(*self._inputs)  # kernels are chosen, and workspaces made, in a first run
                with torch.cuda.graph(self._graph, pool, beside, capture_error_mode=mode):
                    self._out = work(*self._inputs)
        except BaseException:
            _abandon(self._graph, beside.device, pool)
            raise
        now.wait_stream(beside)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        torch._foreach_copy_(self._inputs, list(inputs), non_blocking=True)
        self._graph.replay()
        return self._out.clone()


def _abandon(graph: torch.cuda.CUDAGraph, device: torch.device, pool: Any) -> None:
    """Close a recording that failed, as torch does not: its allocator would give nothing back."""
    try:
        graph.pool()  # there is one if it ended well, and only the work failed
    except RuntimeError:
        with contextlib.suppress(RuntimeError):  # it had not begun
            torch._C._cuda_endAllocateToPool(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)


class _OnCUDA:
    """Records in one pool of memory: graphs that are not replayed at once may share it."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}  # each has its workspaces
        self._living = weakref.WeakSet[_CUDARecording]()

    def __call__(self, work: Work, inputs: Sequence[Tensor]) -> Recording:
        device = inputs[0].device
        with torch.cuda.device(device):
            if not self._living:  # a pool dies with its last graph, and is an error from then on
                self._pool = torch.cuda.graph_pool_handle()
            beside = self._streams.setdefault(device, torch.cuda.Stream())
            recording = _CUDARecording(work, inputs, self._pool, beside)
        self._living.add(recording)
        return recording


class Graphs:
    """Does work, and records what comes often.

    Args:
        capture: ``(work, inputs) -> Recording``; None for CUDA's graphs.
        device_type: of the inputs that are worth recording; work on others is done as it is.
    """

    def __init__(self, *, capture: Capture | None = None, device_type: str = "cuda") -> None:
        self._capture = capture or _OnCUDA()
        self._device_type = device_type
        self._recordings: OrderedDict[Hashable, Recording] = OrderedDict()
        self._seen: Counter[Hashable] = Counter()
        self._dropped: Counter[Hashable] = Counter()
        self._refused: set[Hashable] = set()
        self.drawn: dict[Hashable, dict[int, Sampler]] = {}  # of :func:`sample`

    def take(self, image: Tensor) -> bool:
        """Whether work on such an image ``[B, C, H, W]`` is worth recording, and can be."""
        if any(map(torch.is_autocast_enabled, ("cuda", "cpu"))):
            return False  # it keeps copies of the weights, which end before the graph does
        if image.device.type != self._device_type:
            return False
        return image[:, 0].numel() <= _PIXELS

    def __call__(self, key: Hashable, work: Work, *inputs: Tensor) -> Tensor:
        """``work(*inputs)``: a function of tensors on one device that neither waits nor uploads.

        ``key`` says all that the work depends on besides: it is the same work if key and shapes
        are. The first input is an image ``[B, C, H, W]``.
        """
        if not self.take(inputs[0]):
            return work(*inputs)
        inputs = tuple(given.contiguous() for given in inputs)
        key = key, *((given.shape, given.dtype, given.device) for given in inputs)
        recording = self._recordings.get(key)
        if recording is None:
            self._seen[key] += 1
            if self._seen[key] < _AFTER << self._dropped[key] or key in self._refused:
                return work(*inputs)
            recording = self._record(key, work, inputs)
            if recording is None:
                return work(*inputs)
        self._recordings.move_to_end(key)
        return recording.replay(inputs)

    def clear(self) -> None:
        """Give the memory back."""
        self._recordings.clear()

    def _record(self, key: Hashable, work: Work, inputs: Sequence[Tensor]) -> Recording | None:
        if len(self._recordings) == _MOST:
            oldest, _ = self._recordings.popitem(last=False)
            self._seen[oldest] = 0  # where more take turns than are kept, each is made more rarely
            self._dropped[oldest] += 1
        try:
            self._recordings[key] = self._capture(work, inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                self.clear()
            elif not self._refused:
                # Of two errors the first is that of the work, the second that of the recording.
                reason = str(error.__context__ or error).splitlines()[0]
                warnings.warn(
                    f"no CUDA graph of this model, it runs without: {reason}", stacklevel=2
                )
            self._refused.add(key)
        return self._recordings.get(key)


def _weights(denoiser: Denoiser) -> Hashable:
    """The network and where its weights lie, for graphs read them there."""
    first = next(denoiser.network.parameters(), None)
    return denoiser.network, None if first is None else (first.data_ptr(), first.dtype)


def sample(
    graphs: Graphs,
    sampler: Sampler,
    denoiser: Denoiser,
    mu: Tensor,
    noise: NamedNoise,
    context: Context | None,
) -> Tensor:
    """What the sampler makes of ``mu`` ``[B, C, H, W]``: the whole run as one graph, if it pays.

    All that differs between photos of one size are inputs: the images, the noise of the steps that
    draw some, which the first run tells, and the context.
    """
    names, values = tuple(context or ()), tuple((context or {}).values())

    def run(mu: Tensor, noise: NoiseSource, *values: Tensor) -> Tensor:
        known = dict(zip(names, values, strict=True))
        model: DenoiserLike = BoundDenoiser(denoiser, known) if known else denoiser
        return sampler(model, mu, noise=noise)

    if not graphs.take(mu):
        return run(mu, noise, *values)
    key = _weights(denoiser), id(sampler), repr(sampler.options()), names
    if key not in graphs.drawn:
        drawn = dict[int, Sampler]()  # the sampler lives on: its id is its own

        def watched(step: int, shape: Sequence[int]) -> Tensor:
            drawn[step] = sampler
            return noise(step, shape)

        restored = run(mu, watched, *values)
        graphs.drawn[key] = drawn  # not of a run that found no memory, which saw but a part
        return restored
    steps = list(graphs.drawn[key])

    def work(mu: Tensor, *given: Tensor) -> Tensor:
        fields = dict(zip(steps, given[: len(steps)], strict=True))
        return run(mu, lambda step, _: fields[step], *given[len(steps) :])

    return graphs(key, work, mu, *(noise(step, mu.shape) for step in steps), *values)


class GraphedDenoiser(DenoiserWrapper):
    """A denoiser whose calls are recorded each by itself, for tiles: one shape, thousands of calls.

    The time is an input like the image, so that one graph serves all calls.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, graphs: Graphs) -> None:
        super().__init__(denoiser)
        self._graphs = graphs

    def __call__(self, x: Tensor, t: Time, mu: Tensor, context: Context | None = None) -> Output:
        # Without self, which holds the graphs, whose work this is: all end with the last user.
        names, model = tuple(context or ()), self.denoiser

        def work(x: Tensor, mu: Tensor, times: Tensor, *values: Tensor) -> Tensor:
            known = dict(zip(names, values, strict=True)) or None
            return model.scaled_output(x, times, mu, known)

        times = t.expand(len(x)) if isinstance(t, Tensor) else x.new_full((len(x),), t)
        key = _weights(model), names
        out = self._graphs(key, work, x, mu, times, *(context or {}).values())
        return model.read(out, x, t, mu)

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        """Itself: what differs between runs is an input of its graphs."""
        return BoundDenoiser(self, context) if context else self
