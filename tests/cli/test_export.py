"""``mrdiff export --to``: the programs of docs/export.md, run by it where there is no mrdiff."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrdiff import Restorer
from mrdiff.cli.main import main
from tests.places import ROOT
from tests.tiny_model import write_tiny_checkpoint

ALONE = "import sys; sys.modules |= dict.fromkeys(['mrdiff', 'datamodules', 'callbacks'])\n"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_checkpoint(tmp_path / "tiny.ckpt", tasks=("noisy", "rainy"), mask=True)
    pixels = np.random.default_rng(0).integers(0, 256, (14, 21, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((201, 131)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(kind: str, *flags: str) -> int:
    return main(
        ["export", "--to", kind, "--checkpoint", "tiny.ckpt", "--output", "programs", *flags]
    )


def code(section: str) -> list[str]:
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    return re.findall(
        r"```python\n(.*?)```", text.split(f"\n## {section}\n")[1].split("\n## ")[0], re.S
    )


def run_alone(program: str) -> str:
    command = [sys.executable, "-c", ALONE + program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def assert_restored(task: str, *, nfe: int) -> None:
    restorer = Restorer.from_checkpoint(
        "tiny.ckpt", device="cpu", sampler="fidelity", nfe=nfe, task=task
    )
    expected = np.asarray(restorer(Image.open("photo.jpg")), np.int16)
    found = np.asarray(Image.open("clean.png"), np.int16)
    assert np.abs(found - expected).max() <= 1


def test_onnx_runs_by_the_document_without_mrdiff(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs pip install 'mrdiff[onnx]'")
    assert export("onnx", "--sampler", "fidelity", "--nfe", "1") == 0
    assert "restorer.onnx" in capsys.readouterr().out
    restored, judged = code("ONNX Runtime")
    seen = "import numpy; numpy.save('task.npy', inputs['task'])"
    named = run_alone(restored + judged + seen).strip()
    assert_restored("rainy", nfe=1)
    restorer = Restorer.from_checkpoint("tiny.ckpt", device="cpu")
    lq = torch.from_numpy(np.array(Image.open("photo.jpg"))).permute(2, 0, 1)[None] / 255
    context = restorer.context(lq)
    assert context is not None
    np.testing.assert_allclose(np.load("task.npy"), context["task"].numpy(), atol=1e-5)
    assert named == ["noisy", "rainy"][int(context["task"].argmax())]


def test_torch_runs_by_the_document_without_mrdiff() -> None:
    assert export("torch", "--sampler", "fidelity", "--nfe", "2") == 0
    (restored,) = code("torch.export")
    run_alone(restored)
    assert_restored("rainy", nfe=2)
    known = json.loads(Path("programs/programs.json").read_text())
    assert (known["nfe"], known["tasks"]) == (2, ["noisy", "rainy"])
    assert known["sampler"] == {"name": "fidelity", "nfe": 2}
    inputs = known["programs"]["restorer"]["inputs"]
    assert inputs == {"lq": ["B", 3, "H", "W"], "task": ["B", 2], "mask": ["B", 1, "H", "W"]}
    assert export("torch") == 1  # it is there


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "onxx"], "unknown kind onxx (did you mean onnx?)"),
        (["--nfe", "3"], "--nfe is for --to onnx or --to torch"),
        (["--sampler", "fidelity"], "--sampler is for --to onnx or --to torch"),
        (["--half", "--to", "onnx"], "--half is for weights, not for --to onnx"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--checkpoint", "tiny.ckpt", "--output", "out", *flags]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not Path("out").exists()
