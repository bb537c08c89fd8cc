"""Exported programs: the numbers of a restorer, at any size, in graphs of known size."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mrdiff import DDBMVP, BrownianBridge, MRProcess, Restorer, make_sampler
from mrdiff.acceleration.exporting import ProgramError, exported, save, write_programs
from mrdiff.acceleration.programs import Part, axes, parts
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.path import GaussianPath
from mrdiff.networks import DACLIPUNet, RefusionNAFNet, UNet
from mrdiff.solvers.noise import named_noise

SMALL: dict[str, Any] = {"encoder": (1,), "middle": 1, "decoder": (1,)}
DACLIP: dict[str, Any] = {"width": 32, "multipliers": (1,), "context_width": 16}
SIZES = [(1, 64, 64), (3, 75, 101), (1, 130, 96)]
Program = Callable[..., tuple[Tensor, ...]]


def model(network: nn.Module, path: GaussianPath | None = None) -> Denoiser:
    """With weights that are large enough for every input to count."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.orthogonal_(parameter)
    return (
        Denoiser(network, path or MRProcess(), Parameterization.named("data"))
        .eval()
        .requires_grad_(False)
    )


def small(**options: Any) -> nn.Module:
    return UNet(widths=(4, 8), time_width=8, **SMALL, **options)


def alone(module: nn.Module) -> Program:
    """A module without gradients, of one output or more."""

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            out = module(*values)
        return out if isinstance(out, tuple) else (out,)

    return run


def loaded(file: Path, names: list[str]) -> Program:
    """A program's file as a function of its inputs in their order."""
    if file.suffix == ".pt2":
        return alone(torch.export.load(file).module())
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == names

    def run_onnx(*values: Tensor) -> tuple[Tensor, ...]:
        inputs = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        return tuple(torch.from_numpy(out) for out in session.run(None, inputs))

    return run_onnx


def inputs_of(part: Part, batch: int, height: int, width: int) -> list[Tensor]:
    free = {"B": batch, "H": height, "W": width}
    return [
        torch.rand([free.get(axes(value).get(i), n) for i, n in enumerate(value.shape)])
        for value in part.inputs.values()
    ]


def check(part: Part, program: Program, tolerance: float) -> None:
    for size in SIZES:
        given = inputs_of(part, *size)
        for one, other in zip(program(*given), alone(part.module)(*given), strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
            assert float(other.std()) > 1e-3


several = partial(small, tasks=("a", "b"), mask=True)
PROGRAMS = {
    "restorer": ("restorer", several, "mr-sde-2", 2),
    "denoiser": ("denoiser", several, "mr-sde-2", 2),
    "classifier": ("classifier", several, "mr-sde-2", 2),
    "nafnet": ("restorer", partial(RefusionNAFNet, width=8, **SMALL), "fidelity", 1),
    # With the linear attention of IR-SDE's on the finest level, and a transformer in the middle.
    "daclip": ("restorer", partial(DACLIPUNet, **DACLIP), "fidelity", 1),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_program_computes_what_torch_does(case: str, tmp_path: Path) -> None:
    name, make, sampler, nfe = PROGRAMS[case]
    part = parts(model(make()), make_sampler(sampler, nfe=nfe))[name]
    program = exported(part, 32)
    save(program, part, tmp_path / "program.pt2")
    check(part, loaded(tmp_path / "program.pt2", [*part.inputs]), 1e-6)
    pytest.importorskip("onnxscript", reason="needs pip install 'mrdiff[onnx]'")
    save(program, part, tmp_path / "program.onnx")
    check(part, loaded(tmp_path / "program.onnx", [*part.inputs]), 1e-4)


CASES = {
    "one call": (MRProcess(), "mr-ode-2", 1, 1),
    "mean": (BrownianBridge(), "fidelity", 2, 0),
    "noise": (MRProcess(), "mr-sde-2", 5, 5),
    "bridge with noise": (BrownianBridge(), "mr-sde-1", 2, 2),
    "moving centre": (DDBMVP(), "fidelity", 2, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_restorer_is_restore_with_the_same_noise(case: str) -> None:
    path, name, nfe, count = CASES[case]
    denoiser, sampler = model(small(), path), make_sampler(name, nfe=nfe)
    if case == "one call":
        denoiser.start_from(model(small(), path))
    part = parts(denoiser, sampler)["restorer"]
    program = exported(part, 32)
    names, lq = ["one.png", "another.png"], torch.rand(2, 3, 49, 70)
    source = named_noise(0, names)
    given = [lq]
    if count:
        given.append(torch.stack([source(step, lq.shape) for step in range(count)]))
    assert len(part.inputs) == len(given)
    with torch.no_grad():
        found = program.module()(*given)
    expected = Restorer(denoiser, sampler=sampler).restore(lq, names)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    calls = nfe + (denoiser.start is not None)
    convolutions = [node for node in program.graph.nodes if "conv2d" in str(node.target)]
    layers = [layer for layer in denoiser.network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == calls * len(layers)
    wide = [node for node in program.graph.nodes if _dtype(node) == torch.float64]
    assert not wide  # of the schedule nothing but numbers is left


def _dtype(node: torch.fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


class Reading(nn.Module):
    """Asks for a value of the image."""

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        return x * float(mu.mean())


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, out = make_sampler("mr-ode-1", nfe=1), tmp_path / "out"
    with pytest.raises(ProgramError, match=r"^no program of Reading: .+") as caught:
        write_programs(model(Reading()), sampler, out, "torch", about={})
    assert "\n" not in str(caught.value)
    after = model(small())
    after.start_from(model(small(tasks=("a", "b"))))
    with pytest.raises(ProgramError, match="judges the task"):
        write_programs(after, sampler, out, "torch", about={})
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ProgramError, match=r"pip install 'mrdiff\[onnx\]'"):
        write_programs(model(small()), sampler, out, "onnx", about={})
    assert not [*tmp_path.iterdir()]
    (tmp_path / "kept").touch()
    with pytest.raises(ProgramError, match="not an empty folder"):
        write_programs(model(small()), sampler, tmp_path, "torch", about={})
