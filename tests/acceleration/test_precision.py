"""The precision of restoring: chosen for the device and the training, refused where emulated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mrdiff.acceleration.precision import PrecisionError, set_precision, trained_in
from mrdiff.checkpoints.export import export_model
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.sample import command as sample
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.process import MRProcess
from mrdiff.networks import UNet
from mrdiff.restoration.restorer import Restorer
from tests.tiny_model import write_pairs, write_tiny_checkpoint
from tests.tiny_training import loader, tiny_module, tiny_trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = {"widths": (4, 8), "encoder": (1,), "middle": 1, "decoder": (1,), "time_width": 8}


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch):
    """This CPU as if it had these capabilities and no others of their kind."""

    def have(*names: str) -> None:
        kinds = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16")
        found = {**torch.cpu.get_capabilities(), **{kind: kind in names for kind in kinds}}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)

    return have


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch):
    """A card of a compute capability; torch's switches are as they were afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()

    def have(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        native = capability >= (8, 0)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: native)

    yield have
    torch.set_float32_matmul_precision(before)


def dtype_of(network: nn.Module) -> torch.dtype:
    (dtype,) = {parameter.dtype for parameter in network.parameters()}
    return dtype


@pytest.mark.parametrize(
    ("capability", "trained", "name", "chosen"),
    [
        ((9, 0), "bf16-mixed", "auto", "bf16"),
        ((9, 0), "32-true", "auto", "tf32"),
        ((9, 0), "16-mixed", "auto", "tf32"),
        ((7, 5), "bf16-mixed", "auto", "tf32"),  # there is none: torch computes in float32
        ((9, 0), "bf16-mixed", "fp32", "fp32"),
        ((9, 0), "bf16-mixed", "tf32", "tf32"),
        ((7, 5), "32-true", "fp16", "fp16"),
    ],
)
def test_what_a_card_computes_in(card, capability, trained: str, name: str, chosen: str) -> None:
    card(*capability)
    network = UNet(**TINY)
    assert set_precision(network, name, trained=trained, device=GPU) == chosen
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    assert dtype_of(network) == kinds.get(chosen, torch.float32)
    assert torch.backends.cudnn.allow_tf32 is (chosen != "fp32")
    assert torch.get_float32_matmul_precision() == ("highest" if chosen == "fp32" else "high")


def test_a_foreign_network_keeps_its_numbers_unless_asked(card) -> None:
    """Its time may go through layers that round it to nothing."""

    class Foreign(UNet):
        pass

    card(9, 0)
    assert set_precision(Foreign(**TINY), trained="bf16-mixed", device=GPU) == "tf32"
    assert set_precision(Foreign(**TINY), "bf16", device=GPU) == "bf16"


def test_a_cpu_keeps_float32_unless_asked(cpu_with) -> None:
    cpu_with("avx512_bf16")
    network = UNet(**TINY)
    assert set_precision(network, trained="bf16-mixed") == "fp32"
    assert dtype_of(network) == torch.float32
    assert set_precision(network, "bf16") == "bf16"
    assert dtype_of(network) == torch.bfloat16


@pytest.mark.parametrize("name", ["bf16", "fp16", "tf32", "f32", "int8"])
def test_what_would_be_emulated_is_refused(cpu_with, name: str) -> None:
    cpu_with()
    network = UNet(**TINY)
    cause = {"tf32": "wants a CUDA device", "bf16": "emulated on this CPU", "fp16": "emulated"}
    with pytest.raises(PrecisionError, match=cause.get(name, "unknown precision")) as caught:
        set_precision(network, name)
    assert "\n" not in str(caught.value)
    assert dtype_of(network) == torch.float32


def test_the_solver_stays_in_float32(cpu_with) -> None:
    """And what the network answers in bfloat16 is close to what it answers in float32."""
    cpu_with("avx512_bf16")
    torch.manual_seed(0)
    network = UNet(**TINY)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data")).eval()
    photo, seen = torch.rand(1, 3, 16, 16), set[torch.dtype]()

    def look(step: int, nfe: int, x0: Tensor) -> None:
        seen.add(x0.dtype)

    expected = Restorer(denoiser, nfe=2).restore(photo, ["a"])
    set_precision(network, "bf16")
    found = Restorer(denoiser, nfe=2).restore(photo, ["a"], callback=look)
    assert seen == {found.dtype} == {torch.float32}
    assert 0 < (found - expected).abs().max() < 0.05


def test_a_checkpoint_says_in_what_it_was_trained(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, max_steps=1, precision="bf16-mixed")
    trainer.fit(tiny_module(), loader(count=4, size=16))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    export_model(tmp_path / "a.ckpt", tmp_path / "exported")
    for path in (tmp_path / "a.ckpt", tmp_path / "exported"):
        assert trained_in(read_checkpoint(path)) == "bf16-mixed"
    write_tiny_checkpoint(tmp_path / "old.ckpt")
    assert trained_in(read_checkpoint(tmp_path / "old.ckpt")) == "32-true"


def test_the_command_takes_the_precision_and_its_training(
    tmp_path: Path, cpu_with, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, ["a.png"])
    write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    flags = ["--checkpoint", "tiny.ckpt", "--input", "lq", "--device", "cpu", "--nfe", "2"]

    def run(output: str, *more: str) -> int:
        return sample.main([*flags, "--output", output, *more], program="sample.py")

    cpu_with()
    assert run("out", "--precision", "bf16") == 2
    assert "precision bf16 would only be emulated on this CPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert [run("auto"), run("fp32", "--precision", "fp32")] == [0, 0]
    cpu_with("amx_bf16")
    assert run("bf16", "--precision", "bf16") == 0
    written = [(tmp_path / name / "a.png").read_bytes() for name in ("auto", "fp32", "bf16")]
    assert written[0] == written[1] != written[2]
