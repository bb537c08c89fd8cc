"""mrdiff doctor: every kind of trouble is found, named, and comes with its cure."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections import namedtuple
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mrdiff.cli.doctor import machine
from mrdiff.cli.doctor.duplicates import near
from mrdiff.cli.doctor.findings import span
from mrdiff.cli.main import main
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.system.cores import available_cores
from mrdiff.training import Consistency
from mrdiff.training.module import MRDiffusion
from tests.tiny_model import write_tiny_checkpoint

CONFIG = """
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {widths: [4, 8], encoder: [1], middle: 1, decoder: [1], time_width: 8}
data:
  root: data
  batch_size: 2
  num_workers: 0
  train:
    class_path: datamodules.PairedFolder
    init_args: {lq: "${data.root}/train/LQ", gt: "${data.root}/train/GT", patch_size: 16}
  val:
    class_path: datamodules.PairedFolder
    init_args: {lq: "${data.root}/val/LQ", gt: "${data.root}/val/GT"}
trainer:
  accelerator: cpu
  max_steps: 7200
  max_epochs: -1
  val_check_interval: 100
  check_val_every_n_epoch: null
  gradient_clip_val: 1.0
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {save_dir: runs}
  callbacks:
    - class_path: callbacks.EMA
    - class_path: callbacks.SamplingValidation
      init_args: {nfes: [1, 5], crop: 16}
    - class_path: callbacks.Throughput
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true, monitor: val/psnr@5}
"""
TRAIN = Path("data/train")


def scene(seed: int, size: tuple[int, int] = (40, 32)) -> np.ndarray:
    """Blocks of random colours with some texture, ``[H, W, 3]`` uint8."""
    random = np.random.default_rng(seed)
    width, height = size
    blocks = np.kron(random.integers(30, 220, (8, 10, 3)), np.ones((4, 4, 1)))
    image = Image.fromarray(blocks.astype(np.uint8)).resize(size)
    return np.clip(np.asarray(image) + random.integers(-20, 20, (height, width, 1)), 0, 255).astype(
        np.uint8
    )


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four training pairs, two of validation and a config; the working directory."""
    monkeypatch.chdir(tmp_path)
    for seed in range(6):
        folder = TRAIN if seed < 4 else Path("data/val")
        save(folder / "GT" / f"{seed}.png", scene(seed))
        save(folder / "LQ" / f"{seed}.png", scene(seed) // 2)
    Path("tiny.yaml").write_text(CONFIG)
    return tmp_path


class Doctor:
    """Runs the command and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.text = ""

    def __call__(self, *arguments: str) -> int:
        status = main(["doctor", "--config", "tiny.yaml", *arguments])
        self.text = self.capsys.readouterr().out
        return status

    def says(self, *words: str) -> bool:
        """Whether one problem, with its files and its cure, holds all the words."""
        problems = self.text.replace("  ! warning", "  ✗ warning").split("  ✗ ")[1:]
        assert all("    cure: " in problem for problem in problems)
        return any(all(word in problem for word in words) for problem in problems)


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


def tree() -> dict[Path, int]:
    return {path: path.stat().st_size for path in Path().rglob("*")}


def test_a_healthy_run_is_estimated_and_nothing_is_written(doctor: Doctor) -> None:
    before = tree()
    assert doctor() == 0
    assert tree() == before
    assert "0 errors, 0 warnings" in doctor.text
    assert "train: 4 pairs in data/train/LQ and data/train/GT: 32x40, colour 8 bit" in doctor.text
    assert "4 training images and 2 of validation and test compared" in doctor.text
    assert "4.png, 16x16, mr-ode-2 with NFE 5" in doctor.text  # the callback's crop
    assert re.search(r"each validation +about .* s, 72 times", doctor.text)
    step = re.search(r"time per step +(\S+) s", doctor.text)
    hours = re.search(r"estimated time +(\S+) hours for 7,200 steps, val", doctor.text)
    assert step is not None
    assert hours is not None
    assert float(hours[1]) >= 0.95 * 7200 * float(step[1]) / 3600


def test_a_number_of_partners_that_differs(doctor: Doctor) -> None:
    (TRAIN / "GT" / "2.png").unlink()
    (TRAIN / "LQ" / "1.png").unlink()
    (TRAIN / "LQ" / "0.png").unlink()
    assert doctor() == 1
    counts = "2 LQ images in data/train/LQ, 3 GT images in data/train/GT"
    assert doctor.says("train", counts, "1 name without GT", "LQ/2.png", "add the missing files")
    assert doctor.says("2 names without LQ", "GT/0.png", "GT/1.png")
    assert "not tried: training does not start" in doctor.text


def test_problems_of_several_kinds_come_together(doctor: Doctor) -> None:
    save(TRAIN / "LQ" / "0.png", scene(0, (20, 16)))
    save(TRAIN / "GT" / "alone.png", scene(9))
    save(TRAIN / "GT" / "3.bmp", scene(10))
    for kind in ("LQ", "GT"):
        save(TRAIN / kind / "black.png", np.zeros((32, 40, 3), np.uint8))
    cut = (TRAIN / "LQ" / "1.png").read_bytes()
    (TRAIN / "LQ" / "1.png").write_bytes(cut[: len(cut) // 2])
    assert doctor() == 1
    assert doctor.says("1 pair of unequal size", "LQ/0.png: LQ 20x16, GT 40x32", "cure: bring both")
    assert doctor.says("1 image that cannot be read", "LQ/1.png: ", "truncated", "cure: copy")
    assert doctor.says("1 name without LQ", "alone.png")
    assert doctor.says("1 file of a name twice", "3.", "cure: keep one")
    assert doctor.says("2 images of a single colour", "black.png: all black")
    assert doctor.says("identical in 1 of ", "black.png", "check that lq and gt")
    # The header alone is sound.
    assert doctor("--quick") == 1
    assert "cannot be read" not in doctor.text
    assert doctor.says("1 pair of unequal size")


def wide_png(path: Path, values: np.ndarray) -> None:
    """Values ``[H, W]`` or ``[H, W, 3]`` as a 16-bit PNG; Pillow writes no colour ones."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    kind = 0 if values.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("grey", [True, False])
def test_8_bit_values_in_a_16_bit_file(doctor: Doctor, grey: bool) -> None:
    for seed in range(4):
        values = scene(seed)[:, :, 0] if grey else scene(seed)
        wide_png(TRAIN / "LQ" / f"{seed}.png", values)
        save(TRAIN / "GT" / f"{seed}.png", values)
    assert doctor() == 1
    assert doctor.says("4 16-bit files with no value above 255", "LQ/0.png", "save as 8 bits")
    assert doctor.says("LQ of 16 bits against GT of 8", "convert both to one depth")


def test_12_bit_values_are_a_warning_and_whole_16_bits_are_none(doctor: Doctor) -> None:
    for factor, expected in ((16, True), (257, False)):
        for seed in range(4):
            for kind in ("LQ", "GT"):
                values = scene(seed).astype(np.uint16) * factor // (2 if kind == "LQ" else 1)
                wide_png(TRAIN / kind / f"{seed}.png", values)
        assert doctor("--data.val", "null") == 0
        assert doctor.says("as of 12-bit data", "multiply the values by 16") == expected


def test_folders_that_are_empty_or_missing(doctor: Doctor) -> None:
    for path in Path("data/val/LQ").iterdir():
        path.unlink()
    shutil.rmtree("data/val/GT")
    assert doctor() == 1
    assert doctor.says("val: the LQ folder holds no images", "data/val/LQ", "put the images there")
    assert doctor.says("val: no such folder of GT images", "data/val/GT", "--data.root")


def test_the_same_picture_in_training_and_validation(doctor: Doctor) -> None:
    for kind in ("LQ", "GT"):  # another name and another format, equal pixels
        Image.open(f"data/val/{kind}/4.png").save(TRAIN / kind / "other.bmp")
    assert doctor() == 1
    match = "data/val/GT/4.png = data/train/GT/other.bmp"
    assert doctor.says("val: 1 image also in the training set", match, "remove them from training")


def test_pictures_that_pillow_does_not_open(doctor: Doctor) -> None:
    for kind in ("LQ", "GT"):
        with Image.open(f"data/val/{kind}/4.png") as image:
            pixels = np.asarray(image)
        (TRAIN / kind / "other.jxl").write_bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))
    tifffile.imwrite(TRAIN / "LQ" / "deep.tif", pixels[..., 0].astype(np.uint32) << 24)
    tifffile.imwrite(TRAIN / "GT" / "deep.tif", pixels[..., 0])
    assert doctor() == 1
    assert doctor.says("val: 1 image also in the training set", "data/train/GT/other.jxl")
    assert not doctor.says("that cannot be read")


def test_nearly_the_same_picture_and_one_that_is_there_twice(doctor: Doctor) -> None:
    for kind, factor in (("LQ", 2), ("GT", 1)):
        large = scene(5, (160, 128)) // factor
        save(Path("data/val") / kind / "5.png", large)
        small = Image.fromarray(large).resize((120, 96))
        small.save(TRAIN / kind / "near.jpg", quality=70)
    for kind in ("LQ", "GT"):
        shutil.copy(TRAIN / kind / "0.png", TRAIN / kind / "again.png")
    assert doctor() == 1
    match = "data/val/GT/5.png = data/train/GT/near.jpg"
    assert doctor.says("error: val: 1 image nearly the same", match, "remove them from training")
    assert doctor.says("warning: train: 1 sample there more than once", "again.png", "0.png")


def test_near_duplicates_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrdiff.cli.doctor.duplicates._BLOCK", 3)
    random = np.random.default_rng(0)
    theirs = random.normal(size=(10, 256))
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    ours = np.concatenate([random.normal(size=(4, 256)) / 16, theirs[[8, 2]]])
    assert near(ours.astype(np.float16), theirs.astype(np.float16)) == [(4, 8), (5, 2)]


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_batch_too_large_for_memory(
    doctor: Doctor, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        raise failure

    monkeypatch.setattr(MRDiffusion, "training_step", step)
    assert doctor("--data.train.init_args.patch_size", "128") == 1
    assert doctor.says("data.batch_size 2: out of memory", "--data.batch_size 1", "patch_size 64")


LIMITED = """
import resource, sys
from mrdiff.cli.doctor import trial
from mrdiff.cli.main import main
from mrdiff.system import memory
memory.available = trial.available = lambda device: 200 * 2**20
before = resource.getrlimit(resource.RLIMIT_DATA)
status = main(["doctor", "--config", "tiny.yaml", *sys.argv[1:]])
assert resource.getrlimit(resource.RLIMIT_DATA) == before
sys.exit(status)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit needs Linux")
def test_a_limit_of_memory_is_met_with_an_error_not_with_a_kill(doctor: Doctor) -> None:
    # In a process of its own: what oneDNN could not compile once, for want of memory, it never can.
    wide = ("--model.network.init_args.widths", "[128,128]", "--data.batch_size", "4")
    command = [sys.executable, "-c", LIMITED, *wide, "--data.train.init_args.patch_size", "512"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    doctor.text = done.stdout
    assert doctor.says("data.batch_size 4: out of memory", "--data.batch_size 2", "patch_size 256")


def test_channels_that_do_not_fit(doctor: Doctor) -> None:
    save(TRAIN / "LQ" / "0.png", scene(0)[:, :, 0])
    clear = np.concatenate([scene(1), np.full((32, 40, 1), 9, np.uint8)], axis=2)
    save(TRAIN / "LQ" / "1.png", clear)
    assert doctor("--model.network.init_args.channels", "1") == 1
    assert doctor.says("model.network takes 1 channel", "model.network.init_args.channels to 3")
    assert doctor.says("1 pair of a grey and a colour image", "LQ/0.png", "convert both to colour")
    assert doctor.says("alpha channel that is not opaque", "LQ/1.png", "laid on white")


def test_a_loss_that_is_not_finite_and_one_that_teaches_nothing(doctor: Doctor) -> None:
    Path("mine_doctor.py").write_text(
        "import torch\n"
        "class Bad(torch.nn.Module):\n"
        "    def forward(self, out, target): return (out - target).mean() * float('nan')\n"
        "class Idle(torch.nn.Module):\n"
        "    def forward(self, out, target): return (out * 0).sum()\n"
    )
    assert doctor("--model.loss", "mine_doctor.Bad") == 1
    assert doctor.says("the loss is not finite in 7 of 7 batches", "smaller learning rate")
    assert doctor("--model.loss", "mine_doctor.Idle") == 1
    assert doctor.says("all gradients are zero", "check that model.loss depends")


def test_no_room_on_the_disk(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(free=1000))
    assert doctor() == 1
    assert doctor.says("3 checkpoints", "need", "are free", "runs", "save_top_k")


def test_a_machine_that_does_not_fit_is_a_warning(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    many = available_cores() + 1
    options = ("--trainer.precision", "bf16-mixed", "--data.num_workers", str(many))
    assert doctor(*options, "--data.train.init_args.patch_size", "48", "--trainer.max_steps=0") == 1
    assert doctor.says("bf16-mixed on a CPU that does not compute in bfloat16", "32-true")
    assert doctor.says(f"data.num_workers is {many}", "--data.num_workers auto")
    assert doctor.says("8 images smaller than patch_size 48", "smaller patch_size")
    assert doctor.says("no training step was done")


def test_a_configuration_that_is_wrong(doctor: Doctor) -> None:
    assert doctor("--data.batchsize", "3") == 1
    assert doctor.says("--data.batchsize", "did you mean --data.batch_size?", "correct the key")
    assert doctor("--model.data_std", "-1") == 1
    assert doctor.says("data_std must be positive")
    assert "nothing else was checked" in doctor.text


def test_a_command_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--quick"]) == 2
    assert main(["doctor", "fit", "--config", "tiny.yaml"]) == 2
    assert main(["doctor", "--config", "tinny.yaml"]) == 2
    assert "no config file tinny.yaml" in capsys.readouterr().err


def test_generated_data_has_no_files(doctor: Doctor) -> None:
    rain = "datamodules.degradations.Rain"
    leaves = {"images": 2, "image_size": 32, "patch_size": 16, "length": 8, "degradation": rain}
    data = ["--data.train", "datamodules.DeadLeaves", "--data.val", "null"]
    data += [f"--data.train.init_args.{key}={value}" for key, value in leaves.items()]
    assert doctor(*data) == 0
    assert "DeadLeaves makes its pictures" in doctor.text
    assert "there is no validation set" in doctor.text


DISTILL = (
    *("doctor", "--config", "distill.yaml", "--trainer.accelerator=cpu"),
    *("--trainer.precision=32-true", "--trainer.logger.init_args.save_dir=runs"),
)


def test_a_distillation_is_tried_with_its_objective_on_the_data_of_its_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch.load(write_tiny_checkpoint(Path("old.ckpt")), weights_only=True)
    content["mrdiff"]["data"] = build_run(prepare(["--config", "tiny.yaml"])).model.data_config
    torch.save(content, "old.ckpt")
    compared = list[int]()
    objective = Consistency.__call__

    def noted(self: Consistency, denoiser: Denoiser, x0: torch.Tensor, *rest: Any) -> Any:
        compared.append(len(x0))
        return objective(self, denoiser, x0, *rest)

    monkeypatch.setattr(Consistency, "__call__", noted)
    before = tree()
    assert main([*DISTILL, "--init_from", "old.ckpt"]) == 0
    assert tree() == before
    said = capsys.readouterr().out
    assert "million parameters, boundary parameterization" in said
    assert "train: 4 pairs in data/train/LQ and data/train/GT" in said
    assert "consistency with NFE 2" in said
    assert "hours for 4,000 steps" in said
    assert "0 errors, 0 warnings" in said
    assert compared == [2] * 7


def test_a_distillation_of_nothing_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DISTILL]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "✗ error: no model.network: name one in a config, or start from a model with" in said
    assert "1 error, nothing else was checked" in said
    write_tiny_checkpoint(Path("old.ckpt"))
    assert main([*DISTILL, "--init_from", "old.ckpt"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "old.ckpt does not say what it was trained on: name data.train, such as by" in said


def test_a_run_without_an_end_and_of_gradients_put_together(doctor: Doctor) -> None:
    assert doctor("--trainer.max_steps=-1", "--trainer.accumulate_grad_batches=3") == 0
    assert "the run has no end" in doctor.text
    assert "nan" not in doctor.text.replace(str(Path.cwd()), "")
    epochs = "--trainer.max_steps=-1 --trainer.max_epochs=30 --trainer.val_check_interval=1.0"
    several = "--trainer.check_val_every_n_epoch=2 --trainer.devices=2 --data.batch_size=9 --quick"
    assert doctor(*epochs.split(), *several.split()) == 0
    assert "s, 15 times" in doctor.text
    assert "hours for 15 steps" in doctor.text  # two processes share an epoch
    assert doctor.says("data.batch_size 9 is more than", "batches will be of 4")
    assert doctor("--minutes=1.5", "--quick") == 0
    assert re.search(r"each validation +about .* s, 72 times", doctor.text)
    assert re.search(r"estimated time +1.5 minutes, as set: about [\d,]+ steps", doctor.text)


def test_folders_that_cannot_be_written(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_writable", lambda path: False)
    leaves = ["--data.train", "datamodules.DeadLeaves", "--data.train.init_args.image_size=64"]
    leaves += ["--data.train.init_args.degradation", "datamodules.degradations.Rain"]
    monkeypatch.setenv("MRDIFF_CACHE", "cache")
    assert doctor(*leaves, "--data.train.init_args.images=1") == 1
    assert doctor.says("checkpoints cannot be written", "runs", "--trainer.default_root_dir")
    assert doctor.says("cache of generated pictures", "cache", "MRDIFF_CACHE")


def test_spans_have_the_unit_that_suits_them() -> None:
    assert [span(0.1234), span(600), span(7200), span(10 * 86400)] == [
        "0.123 s",
        "10.0 min",
        "2.0 hours",
        "10.0 days",
    ]
