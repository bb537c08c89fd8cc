"""Programs in files: for ONNX Runtime and its like, or for torch alone."""

from __future__ import annotations

import importlib
import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mrdiff.acceleration.backends import first_line
from mrdiff.acceleration.programs import Part, axes, least_side, parts
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.networks.protocol import known_tasks
from mrdiff.solvers.run import Sampler
from mrdiff.system.files import appearing, is_free

__all__ = ["SUFFIXES", "ProgramError", "exported", "save", "write_programs"]

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


class ProgramError(ValueError):
    """A model that cannot be exported, a package or a place that is missing: one line."""


def exported(part: Part, least: int) -> torch.export.ExportedProgram:
    """A part as one program for all sizes from ``least`` on."""
    sizes = {"B": torch.export.Dim("B")}
    sizes |= {name: torch.export.Dim(name, min=least) for name in "HW"}
    shapes = torch.export.ShapesCollection()
    for value in part.inputs.values():
        shapes[value] = {axis: sizes[name] for axis, name in axes(value).items()}
    given = (*part.inputs.values(),)
    dynamic = shapes.dynamic_shapes(part.module, given)
    return torch.export.export(part.module, given, dynamic_shapes=dynamic)


def save(program: torch.export.ExportedProgram, part: Part, file: Path) -> None:
    """Write a program in the form that the suffix of ``file`` says."""
    if file.suffix == SUFFIXES["torch"]:
        torch.export.save(program, file)
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    translated = torch.onnx.export(
        program,
        input_names=[*part.inputs],
        output_names=[*part.outputs],
        dynamo=True,
        verbose=False,
    )
    assert translated is not None
    translated.save(file)


def _described(part: Part) -> dict[str, Any]:
    def shape(value: Tensor) -> list[int | str]:
        free = axes(value)
        return [free.get(axis, size) for axis, size in enumerate(value.shape)]

    inputs = {name: shape(value) for name, value in part.inputs.items()}
    return {"inputs": inputs, "outputs": [*part.outputs]}


def _check(denoiser: Denoiser, folder: Path, kind: str) -> None:
    if not is_free(folder):
        raise ProgramError(f"{folder} exists and is not an empty folder: choose another")
    if denoiser.start is not None and known_tasks(denoiser.start.network):
        raise ProgramError("the model that this one starts from judges the task: no program does")
    if kind == "onnx":
        try:
            importlib.import_module("onnxscript")
        except ModuleNotFoundError as error:
            what = "the exporter to ONNX is not installed: pip install 'mrdiff[onnx]'"
            raise ProgramError(what) from error


def write_programs(
    denoiser: Denoiser,
    sampler: Sampler,
    folder: str | os.PathLike[str],
    kind: Literal["onnx", "torch"],
    *,
    about: Mapping[str, Any],
) -> list[str]:
    """Write a model's programs, and ``programs.json``, which names their inputs and the tasks.

    Args:
        denoiser: the model, in float32 on the CPU, in evaluation mode.
        sampler: that of ``restorer``.
        folder: where to; missing or empty.
        kind: for ONNX runtimes, or for ``torch.export.load``.
        about: plain values that ``programs.json`` is to have besides.

    Returns:
        The names of the files.

    Raises:
        ProgramError: the folder is not free, a package is missing, or the model takes no form that
            is one for all sizes.
    """
    folder = Path(folder)
    _check(denoiser, folder, kind)
    least, made = least_side(denoiser), parts(denoiser, sampler)
    known = {**about, "tasks": [*known_tasks(denoiser.network)], "least_side": least}
    known["programs"] = {name: _described(part) for name, part in made.items()}
    with appearing(folder) as target:
        for name, part in made.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of torch's own code
                    save(exported(part, least), part, target / f"{name}{SUFFIXES[kind]}")
            except OSError:
                raise
            except Exception as error:  # of many kinds, with pages of text
                what = f"no program of {type(denoiser.network).__name__}"
                raise ProgramError(f"{what}: {first_line(error)}") from error
        text = json.dumps(known, indent=2, ensure_ascii=False)
        (target / "programs.json").write_text(text + "\n", encoding="utf-8")
        return sorted(path.name for path in target.iterdir())
