"""A restoration by torch, by OpenVINO and by exported programs: seconds on the CPU.

    python -m benchmarks.onnx_runtime [--checkpoint universal] [--sides 256 384] [--rounds 15]

``torch`` is what ``sample.py`` runs, ``openvino`` what it runs with ``--backend openvino``;
``onnx`` and ``pt2`` are the whole restorer as ``mrdiff export`` writes it, run by ONNX Runtime and
by ``torch.export.load``. The ways take turns on the same image; seconds are medians without the
first run, and so are the ratios, of torch's seconds to another's in the same turn. Threads are the
cores that the process may use: ``taskset -c 0`` for one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mrdiff.system.cores import set_process_defaults

set_process_defaults()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from mrdiff import Restorer  # noqa: E402
from mrdiff.acceleration.backends import OpenVINONetwork  # noqa: E402
from mrdiff.acceleration.exporting import write_programs  # noqa: E402
from mrdiff.acceleration.programs import parts  # noqa: E402
from mrdiff.checkpoints.places import find_model  # noqa: E402
from mrdiff.networks.protocol import known_tasks  # noqa: E402

Way = Callable[[dict[str, Tensor]], Tensor]


def _by_mrdiff(restorer: Restorer) -> Way:
    def run(inputs: dict[str, Tensor]) -> Tensor:
        return restorer.restore(inputs["lq"], ["photo"], mask=inputs.get("mask"))

    return run


def _by_onnx_runtime(file: Path) -> Way:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> Tensor:
        (restored,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(restored)

    return run


def _by_torch_alone(file: Path) -> Way:
    program = torch.export.load(file).module()

    def run(inputs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            restored: Tensor = program(*inputs.values())
        return restored

    return run


def ways(
    checkpoint: str, folder: Path
) -> tuple[dict[str, Way], Callable[[int], dict[str, Tensor]]]:
    """The ways to restore, and what makes their inputs for a side in pixels."""
    network = Restorer.from_checkpoint(checkpoint, device="cpu", precision="fp32").denoiser.network
    tasks = known_tasks(network)
    options = {"device": "cpu", "precision": "fp32", "tile": "off"}
    plain, fast = (
        Restorer.from_checkpoint(checkpoint, task=tasks[0] if tasks else "auto", **options)
        for _ in range(2)
    )
    fast.denoiser.network = OpenVINONetwork(fast.denoiser.network)
    for kind in ("onnx", "torch"):
        write_programs(plain.denoiser, plain.sampler, folder / kind, kind, about={})
    examples = parts(plain.denoiser, plain.sampler)["restorer"].inputs
    if {*examples} - {"lq", "noise", "task", "mask"}:
        raise SystemExit("a model without features of another network, please")

    def inputs(side: int) -> dict[str, Tensor]:
        made = {"lq": torch.rand(1, 3, side, side)}
        if "noise" in examples:
            made["noise"] = torch.randn(len(examples["noise"]), *made["lq"].shape)
        if tasks:
            made["task"] = torch.eye(len(tasks))[:1]
        if "mask" in examples:
            made["mask"] = torch.ones(1, 1, side, side)
        return made

    return {
        "torch": _by_mrdiff(plain),
        "openvino": _by_mrdiff(fast),
        "onnx": _by_onnx_runtime(folder / "onnx" / "restorer.onnx"),
        "pt2": _by_torch_alone(folder / "torch" / "restorer.pt2"),
    }, inputs


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=find_model, default=find_model("universal"))
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 384])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(given)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        found, inputs = ways(options.checkpoint, Path(scratch))
        print(
            f"| side, {threads} threads | by | s / restoration | torch's / it |\n|---|---|---|---|"
        )
        for side in options.sides:
            image, seconds = inputs(side), {name: list[float]() for name in found}
            for _ in range(options.rounds + 1):
                for name, way in found.items():
                    begin = time.perf_counter()
                    way(image)
                    seconds[name].append(time.perf_counter() - begin)
            for name, own in seconds.items():
                ratios = (one / other for one, other in zip(seconds["torch"], own, strict=True))
                ratio, median = statistics.median([*ratios][1:]), statistics.median(own[1:])
                print(f"| {side} | {name} | {median:.2f} | {ratio:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
