"""Photos of a command measured against their references."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.measuring import find_meter, measure
from mrdiff.metrics import Meter
from mrdiff.photo import PhotoError


def test_every_metric_is_measured_or_the_photo_is_named() -> None:
    """A table has the same columns in every row."""
    meter, photo = Meter(["psnr", "ssim", "sw"]), torch.rand(3, 12, 40)
    assert list(measure(meter, photo, photo / 2, "a.png")) == ["psnr", "ssim", "sw"]
    with pytest.raises(PhotoError, match=r"^b\.png: 40 x 6 px are too few for SSIM, SW$"):
        measure(meter, photo[:, :6], photo[:, :6], "b.png")


def test_a_metric_to_choose_by_has_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "lpips" not in find_meter(Namespace(metric="psnr", lpips_weights=None)).names
    with pytest.raises(CommandError, match="give --lpips_weights FILE"):
        find_meter(Namespace(metric="lpips", lpips_weights=None))
