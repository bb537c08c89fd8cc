"""Faster ways to run a network without gradients, for a start-up time: by inductor or OpenVINO."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mrdiff.acceleration.int8 import check_ranges, rounded
from mrdiff.acceleration.precision import check_precision
from mrdiff.networks.inference.fast import inference_copy
from mrdiff.system.devices import computes_bf16
from mrdiff.system.names import PRECISIONS

__all__ = ["BackendError", "OpenVINONetwork", "Positional", "as_built", "first_line"]
__all__ += ["use_inductor"]

T = TypeVar("T")

_PROGRAMS = 8  # at most, each with weights of its own, one a size: a tiled photo has four
_BODY = "body"  # of our networks: all between the first convolution and the last


class BackendError(ValueError):
    """A backend that is not there or does not take the network: one line."""


class Positional(nn.Module):
    """A module with the values of its context, the last argument, one by one, as tracing wants it.

    ``names`` are the keys of the context, which is None without any.
    """

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: Tensor) -> Any:
        count = len(values) - len(self.names)
        context = dict(zip(self.names, values[count:], strict=True))
        return self.module(*values[:count], context or None)


class OpenVINONetwork(nn.Module):
    """A network on the CPU that OpenVINO runs; images are float32 in and out.

    It is translated once for each of the last few sizes of image, which takes seconds. All else
    that is asked of it, such as ``tasks`` or ``classify``, the network answers.

    Args:
        network: in float32 on the CPU, in evaluation mode; later changes of its weights have no
            effect.
        precision: that of the layers within, ``fp32``, ``bf16``, or ``int8`` for convolutions and,
            between them, bfloat16 on a CPU that computes in it, else float32.
        ranges: of :func:`mrdiff.acceleration.int8.input_ranges`, for ``int8``.

    Raises:
        BackendError: OpenVINO is not installed, there is no such precision, or it lacks ranges.
        PrecisionError: the CPU does not compute in it.
        RangeError: the ranges are not of this network.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: str = "fp32",
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()
        known = [name for name in PRECISIONS["openvino"] if name != "auto"]
        if precision not in known:
            raise BackendError(f"unknown precision {precision}: use one of {', '.join(known)}")
        check_precision(precision, torch.device("cpu"))
        if isinstance(network, OpenVINONetwork):
            raise BackendError("this network is run by OpenVINO already")
        if (precision == "int8") != bool(ranges):
            raise BackendError("precision int8 and ranges are given together or not at all")
        # Its import reports to its makers, unless the package for that is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
        except ModuleNotFoundError as error:
            what = "OpenVINO is not installed: pip install 'mrdiff[openvino]'"
            raise BackendError(what) from error
        self.network, self.precision, self.ranges = network, precision, dict(ranges or {})
        check_ranges(network, self.ranges)
        self._openvino = openvino
        self._programs: dict[Any, Any] = {}
        self._lock = threading.Lock()  # a program runs once at a time

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    @torch.no_grad()
    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, context: dict[str, Tensor] | None = None
    ) -> Tensor:
        """As :meth:`mrdiff.networks.protocol.Network.forward`, on the CPU.

        Raises:
            BackendError: OpenVINO cannot translate the network.
        """
        context = dict(sorted((context or {}).items()))
        given = [v.to(torch.float32).contiguous() for v in (x, mu, t, *context.values())]
        names = tuple(context)
        with self._lock:
            program = self._program(names, given)
            return torch.from_numpy(program([tensor.numpy() for tensor in given])[0])

    def _program(self, names: tuple[str, ...], given: list[Tensor]) -> Any:
        """The network for inputs of these names and sizes; the longest unused one makes room."""
        key = names, *(tensor.shape for tensor in given)
        program = self._programs.pop(key, None)
        if program is None:
            if len(self._programs) == _PROGRAMS:
                del self._programs[next(iter(self._programs))]
            program = self._translated(names, given)
        self._programs[key] = program
        return program

    def _translated(self, names: tuple[str, ...], given: list[Tensor]) -> Any:
        native = self.precision == "int8" and computes_bf16(torch.device("cpu"))
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if native or self.precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the sizes in the trace are constants: they are meant
            # OpenVINO's own trace runs the network several times.
            network = rounded(self.network, self.ranges) if self.ranges else self.network
            whole = Positional(network, names)
            traced = torch.jit.trace(whole, tuple(given), check_trace=False)
            sizes, example = [list(tensor.shape) for tensor in given], tuple(given)
            try:
                model = self._openvino.convert_model(traced, example_input=example, input=sizes)
                return _alone(lambda: self._openvino.compile_model(model, "CPU", settings))
            except Exception as error:  # of many kinds, with pages of text
                what = f"OpenVINO does not take {type(self.network).__name__}"
                raise BackendError(f"{what}: {first_line(error)}") from error


def _alone(work: Callable[[], T]) -> T:
    """Do it in a thread of its own.

    A program of OpenVINO gives its thread a stack for signal handlers, and when it is deleted puts
    back what it found. Of several programs that can be a stack that is gone, and the next Ctrl+C
    would end in a segmentation fault. In a new thread there is nothing to be put back.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def use_inductor(network: nn.Module, *, device: torch.device | None = None) -> None:
    """Have inductor compile the network, in place, at its first call without gradients.

    Of a network with a method ``body`` that is what is compiled, as a whole and for each of the
    first sizes of image; the rest, and what is made once a run, stay as they are. On the CPU
    weights become constants of the program: later changes have no effect. ``device`` is where it
    will run; None for where it is.

    Raises:
        BackendError: inductor does not work on this machine, for want of a C++ compiler perhaps.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    device = device or next(network.parameters()).device
    try:  # with next to nothing, so that what is missing is known at once
        torch.compile(torch.nn.functional.silu)(torch.ones(64, device=device))
    except Exception as error:  # of torch's compiler, C++ and Triton
        what = "torch cannot compile here; it needs a C++ compiler"
        raise BackendError(f"{what}: {first_line(error)}") from error
    dynamo.recompile_limit = 8 * _PROGRAMS  # it is that of all networks of a class
    inductor.freezing = device.type == "cpu"
    if callable(getattr(network, _BODY, None)):
        setattr(network, _BODY, _compiled(network))
    else:
        network.compile()


def _compiled(network: nn.Module) -> Callable[..., Tensor]:
    """The network's body as programs for the first sizes that come; others run as they are."""
    plain: Callable[..., Tensor] | None = None
    compiled = torch.compile(getattr(network, _BODY), fullgraph=True, dynamic=False)
    known: set[torch.Size] = set()

    def body(first: Tensor, *conditions: Any) -> Tensor:
        nonlocal plain
        if first.shape not in known:
            if len(known) == _PROGRAMS:
                note = f"more than {_PROGRAMS} sizes of image: the others are not compiled"
                warnings.warn(note, stacklevel=2)
                # Made now: the network may have been moved, and each device has its own.
                plain = plain or getattr(inference_copy(as_built(network)), _BODY)
                return plain(first, *conditions)
            known.add(first.shape)
        out: Tensor = compiled(first, *conditions)
        return out

    return body


def first_line(error: Exception) -> str:
    """What a library says of an error first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def as_built(network: nn.Module) -> nn.Module:
    """The network as torch runs it without a backend, of the same parameters."""
    if isinstance(network, OpenVINONetwork):
        return as_built(network.network)
    built = copy.copy(network)  # a copy of a compiled module is not compiled
    built.__dict__.pop(_BODY, None)
    return built
