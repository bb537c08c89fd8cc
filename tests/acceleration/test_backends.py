"""Networks run by OpenVINO and by inductor: the same numbers, the same photos, clear refusals."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from mrdiff import MRSampler
from mrdiff.acceleration import backends
from mrdiff.acceleration.backends import BackendError, OpenVINONetwork, as_built
from mrdiff.acceleration.int8 import RangeError, input_ranges, rounded
from mrdiff.cli.sample import command as sample
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.wrappers import BoundDenoiser
from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet, UNet
from mrdiff.networks.protocol import is_plain
from mrdiff.restoration.footprint import footprint
from tests.places import ROOT
from tests.tiny_model import write_pairs, write_tiny_checkpoint

SMALL = {"encoder": (1,), "middle": 1, "decoder": (1,)}

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="needs OpenVINO: pip install 'mrdiff[openvino]'",
)


def networks() -> dict[str, tuple[nn.Module, dict[str, Tensor] | None]]:
    """Tiny ones with random weights, and their context."""
    torch.manual_seed(0)
    task, mask = torch.tensor([[0.3, 0.7]]), (torch.rand(1, 1, 33, 38) > 0.5).float()
    given = {name: torch.randn(1, 16) for name in ("text", "image")}
    small = UNet(widths=(4, 8), time_width=8, **SMALL)
    several = UNet(widths=(4, 8), time_width=8, tasks=("a", "b"), mask=True, **SMALL)
    daclip = DACLIPUNet(width=32, multipliers=(1, 1), context_width=16)
    made = {
        "unet": (small, None),
        "several tasks": (several, {"task": task, "mask": mask}),
        "nafnet": (RefusionNAFNet(width=8, **SMALL), None),
        "irsde": (IRSDEUNet(width=8, depth=2), None),
        "daclip": (daclip, given),
    }
    for network, _ in made.values():
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return made


def denoiser_of(network: nn.Module) -> Denoiser:
    return Denoiser(network, MRProcess(), Parameterization.named("data"))


@needs_openvino
@pytest.mark.parametrize("name", ["unet", "several tasks", "nafnet", "irsde", "daclip"])
def test_openvino_computes_what_torch_does(name: str) -> None:
    network, context = networks()[name]
    fast = OpenVINONetwork(network)
    for t in (0.7731, 0.1):
        x, mu = torch.rand(2, 1, 3, 33, 38)
        with torch.no_grad():
            expected = network(x, mu, torch.tensor([t]), context)
        torch.testing.assert_close(
            fast(x, mu, torch.tensor([t]), context), expected, rtol=1e-4, atol=1e-4
        )
    assert len(fast._programs) == 1


@needs_openvino
def test_bf16_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {**torch.cpu.get_capabilities(), "avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    network, _ = networks()["nafnet"]
    x, mu = torch.rand(2, 1, 3, 32, 32)
    t = torch.tensor([0.7731])
    with torch.no_grad():
        expected = network(x, mu, t)
    found = OpenVINONetwork(network, precision="bf16")(x, mu, t)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()


@needs_openvino
def test_there_is_a_program_for_each_of_the_last_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_PROGRAMS", 2)
    network, _ = networks()["unet"]
    fast = OpenVINONetwork(network)
    for width in (16, 20, 16, 24):
        image = torch.rand(1, 3, 16, width)
        assert fast(image, image, torch.tensor([0.5])).shape == image.shape
    assert [key[1][-1] for key in fast._programs] == [16, 24]


@needs_openvino
def test_nothing_is_reported_to_the_makers_of_openvino() -> None:
    code = (
        "import sys, torch\n"
        "from mrdiff.acceleration.backends import OpenVINONetwork\n"
        "OpenVINONetwork(torch.nn.Identity())\n"
        "sys.exit('openvino_telemetry.main' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU as if it could not compute in bfloat16."""
    capabilities = {**torch.cpu.get_capabilities(), "avx512_bf16": False, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@needs_openvino
@pytest.mark.parametrize("name", ["unet", "several tasks", "nafnet", "irsde", "daclip"])
def test_int8_is_the_rounded_network_in_integers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bf16(monkeypatch)  # so that float32 is between the integers
    network, context = networks()[name]
    generator = torch.Generator().manual_seed(3)
    x, mu = torch.rand(2, 1, 3, 33, 38, generator=generator)
    t = torch.tensor([0.3])
    with torch.no_grad(), input_ranges(network) as ranges:
        plain = network(x, mu, t, context)
    fast = OpenVINONetwork(network, precision="int8", ranges=ranges)
    found, expected = fast(x, mu, t, context), rounded(network, ranges)(x, mu, t, context)
    # Not equal: what lies between two steps goes to either, and on to the layers after it.
    error = (expected - plain).norm()
    assert 1e-5 * plain.norm() < error < 0.05 * plain.norm()
    assert (found - expected).norm() < error
    assert (found - plain).norm() < 1.2 * error
    (program,) = fast._programs.values()
    kinds = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in program.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    assert sum(kind in ("u8", "i8") for kind in kinds) >= 0.8 * len(ranges) > 0


@needs_openvino
def test_int8_wants_ranges_of_its_network() -> None:
    network, _ = networks()["unet"]
    for precision, ranges in (("int8", None), ("int8", {}), ("fp32", {"stem": (0.0, 1.0)})):
        with pytest.raises(BackendError, match="are given together or not at all"):
            OpenVINONetwork(network, precision=precision, ranges=ranges)
    with pytest.raises(RangeError, match="has no convolution middle"):
        OpenVINONetwork(network, precision="int8", ranges={"middle": (0.0, 1.0)})
    with pytest.raises(BackendError, match="is run by OpenVINO already"):
        OpenVINONetwork(OpenVINONetwork(network))


_SIGNALLED = """
import os, signal, torch
from mrdiff.acceleration.backends import OpenVINONetwork
from mrdiff.networks import UNet
network = UNet(widths=(4,), encoder=(), middle=1, decoder=(), time_width=8).eval()
fast = OpenVINONetwork(network.requires_grad_(False))
for width in (8, 12, 16):
    image = torch.rand(1, 3, 8, width)
    fast(image, image, torch.tensor([0.5]))
while fast._programs:  # from the oldest
    del fast._programs[next(iter(fast._programs))]
    signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
    os.kill(os.getpid(), signal.SIGUSR1)
"""


@needs_openvino
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_signals_are_handled_when_programs_are_gone() -> None:
    """OpenVINO would leave the thread a stack for handlers that is gone."""
    command = [sys.executable, "-c", _SIGNALLED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n" * 3), done.stderr


@needs_openvino
def test_the_network_answers_what_it_is_asked() -> None:
    network, _ = networks()["several tasks"]
    fast = OpenVINONetwork(network)
    assert (fast.tasks, fast.mask, fast.channels) == (("a", "b"), True, 3)
    assert fast.size_multiple == network.size_multiple
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(fast.classify(image), network.classify(image))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = fast.nonsense


@needs_openvino
def test_it_is_not_prepared_and_its_memory_is_torchs() -> None:
    network, _ = networks()["unet"]
    plain, fast = denoiser_of(network), denoiser_of(OpenVINONetwork(network))
    mu, times = torch.rand(1, 3, 32, 32), [1.0, 0.5]
    with torch.no_grad():
        assert plain.prepare(mu, times)._run is not None
        assert fast.prepare(mu, times)._run is None
    assert footprint(fast, mu) == footprint(plain, mu)
    assert isinstance(fast.network, OpenVINONetwork)
    assert not fast.network._programs


def test_as_built_undoes_a_compilation() -> None:
    network, _ = networks()["unet"]
    network.compile()
    network.body = None
    built = as_built(network)
    assert built._compiled_call_impl is None
    assert built.body == type(built).body.__get__(built)
    assert network._compiled_call_impl is not None
    assert network.body is None


@pytest.fixture
def compiled_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """``use_inductor`` without inductor: graphs are counted and run as they are."""
    counter, true = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", partial(true, backend=counter))
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


def restored(denoiser: Denoiser, mu: Tensor, context: dict[str, Tensor] | None) -> Tensor:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return MRSampler(nfe=5)(BoundDenoiser(denoiser, context), mu, noise=noise)


@pytest.mark.parametrize("name", ["unet", "several tasks", "nafnet", "irsde", "daclip"])
def test_the_compiled_body_is_one_graph_of_a_prepared_run(
    name: str, compiled_with: CompileCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, context = networks()[name]
    denoiser, mu = denoiser_of(network), torch.rand(1, 3, 33, 38)
    expected = restored(denoiser, mu, context)
    backends.use_inductor(network)
    compiled_with.frame_count = 0  # of the trial
    assert is_plain(network)  # what does not change is made once a run
    monkeypatch.setattr(type(network), "forward", None)
    for _ in range(2):
        found = restored(denoiser, mu, context)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert compiled_with.frame_count == 1


def test_the_first_sizes_are_compiled_and_others_run_as_they_are(
    compiled_with: CompileCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_PROGRAMS", 2)
    network, _ = networks()["unet"]
    denoiser, images = denoiser_of(network), [torch.rand(1, 3, 16, w) for w in (16, 24, 32, 16)]
    expected = [restored(denoiser, image, None) for image in images]
    backends.use_inductor(network)
    compiled_with.frame_count = 0
    with pytest.warns(UserWarning, match="more than 2 sizes of image"):
        found = [restored(denoiser, image, None) for image in images]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert compiled_with.frame_count == 2


@needs_openvino
def test_what_openvino_does_not_take_is_one_line() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
            return torch.linalg.eigvals(x).real.unsqueeze(-1) + mu

    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(BackendError, match="OpenVINO does not take Odd: ") as caught:
        OpenVINONetwork(Odd())(image, image, torch.tensor([0.5]))
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendError, match="unknown precision f64"):
        OpenVINONetwork(Odd(), precision="f64")


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install 'mrdiff\[openvino\]'"):
        OpenVINONetwork(nn.Identity())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_pairs(tmp_path, ("a.png", "b.png"))
    with Image.open(tmp_path / "lq" / "b.png") as photo:
        photo.resize((67, 50)).save(tmp_path / "lq" / "b.png")
    write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    return tmp_path


def run(work: Path, output: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", "tiny.ckpt"]
    command += ["--input", "lq", "--output", output, "--device", "cpu", "--nfe", "2", *flags]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)


def difference(work: Path, one: str, other: str) -> int:
    """The largest, in grey levels."""
    pixels = [
        [np.asarray(Image.open(work / folder / name), dtype=int) for name in ("a.png", "b.png")]
        for folder in (one, other)
    ]
    return max(int(abs(a - b).max()) for a, b in zip(*pixels, strict=True))


@needs_openvino
def test_the_command_writes_the_same_photos(work: Path) -> None:
    for output, flags in {"torch": (), "fast": ("--backend", "openvino")}.items():
        done = run(work, output, *flags)
        assert done.returncode == 0, done.stderr
    assert difference(work, "torch", "fast") <= 1
    assert difference(work, "torch", "lq") > 1


@pytest.mark.slow
def test_the_compiled_network_writes_the_same_photos(work: Path) -> None:
    assert run(work, "plain").returncode == 0
    done = run(work, "fast", "--compile")
    assert done.returncode == 0, done.stderr
    assert difference(work, "plain", "fast") <= 1


@pytest.mark.slow
def test_a_missing_compiler_is_one_line(work: Path) -> None:
    done = run(
        work, "out", "--compile", PATH="/nonexistent", CXX="none", TORCHINDUCTOR_CACHE_DIR="c"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sample.py: error: torch cannot compile here")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "openvno"], "unknown backend openvno (did you mean openvino?)"),
        (["--backend", "openvino", "--precision", "f64"], "unknown precision f64"),
        (["--backend", "openvino", "--device", "cuda"], "not for --device cuda"),
        (["--backend", "openvino", "--compile"], "--compile is for --backend torch"),
        (["--precision", "int8"], "--precision int8 is not for --backend torch: use one of auto,"),
        (["--backend", "openvino", "--precision", "tf32"], "use one of auto, fp32, bf16, int8"),
        (["--device", "cpu", "--precision", "tf32"], "precision tf32 wants a CUDA device"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str, capsys
) -> None:
    monkeypatch.chdir(work)
    paths = ["--checkpoint", "tiny.ckpt", "--input", "lq", "--output", "out"]
    assert sample.main([*paths, *flags], program="sample.py") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
