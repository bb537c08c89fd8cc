"""Where the image is nearly finished a network is worst: sampling does not follow it there."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from mrdiff import MRDiffusion, MRProcess, MRSampler
from mrdiff.training import Charbonnier
from tests.tiny_training import TinyImages, tiny_unet, trainer


def test_the_error_of_a_trained_model_does_not_grow_towards_the_end(tmp_path: Path) -> None:
    """By no more than 5 % along the last third of 20 calls, on images that it has not seen."""
    pl.seed_everything(0, verbose=False)
    module = MRDiffusion(tiny_unet(), loss=Charbonnier(epsilon=0.5), time_power=2)
    trainer(tmp_path, 300).fit(module, DataLoader(TinyImages(64), batch_size=8))
    module.eval()
    unseen = [TinyImages()[index] for index in range(64, 80)]
    mu, gt = (torch.stack([sample[key] for sample in unseen]) for key in ("lq", "gt"))
    errors = list[float]()
    MRSampler(nfe=20)(
        module.denoiser,
        mu,
        noise=torch.Generator().manual_seed(0),
        callback=lambda step, t, x, p: errors.append(float((p.x0 - gt).square().mean().sqrt())),
    )
    assert max(errors[14:]) <= 1.05 * errors[13]


@pytest.mark.parametrize("nfe", [2, 5, 20, 100])
def test_the_last_call_is_where_noise_is_still_half_a_grey_level(nfe: int) -> None:
    for grid in ("uniform_log_snr", "karras"):
        last = MRSampler(nfe=nfe, grid=grid).times(MRProcess())[-2]
        assert float(MRProcess().sigma(last)) == pytest.approx(0.002, rel=1e-3)
