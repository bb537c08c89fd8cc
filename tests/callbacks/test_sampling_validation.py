"""Validation by sampling: what is logged where, that it repeats, and that it disturbs nothing."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from callbacks import EMA, SamplingValidation
from callbacks.pictures import GridRow, draw_grid
from mrdiff import BrownianBridge, MRDiffusion, MRSampler, Prediction
from mrdiff.diffusion.wrappers import AutocastDenoiser
from mrdiff.metrics import Features, frechet_distance, kernel_distance, psnr
from mrdiff.metrics.sliced import sliced_wasserstein
from mrdiff.photo import centre_crop
from mrdiff.solvers.noise import named_noise
from mrdiff.system.names import METRICS, VALIDATION_METRICS
from tests.random_weights import ALEXNET, VGG16, write_random_features
from tests.tiny_training import SIZE, TinyImages, TinyNetwork, loader, tiny_module, tiny_trainer

PLAIN = [name for name in METRICS if name != "lpips"]


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever weights this machine has, tests that do not name them run without."""
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-hub"))


def small(**options: Any) -> SamplingValidation:
    return SamplingValidation(**{"nfes": (1, 2), "crop": None, **options})


def validate(folder: Path, callback: SamplingValidation, **options: Any) -> dict[str, float]:
    trainer = tiny_trainer(folder, callback)
    (scores,) = trainer.validate(tiny_module(), loader(**options), verbose=False)
    return {k: v for k, v in scores.items() if "@" in k and "seconds" not in k}


def read_events(trainer: Trainer) -> EventAccumulator:
    events = EventAccumulator(trainer.loggers[0].log_dir, size_guidance={"images": 0})
    events.Reload()
    return events


def test_a_sampler_that_cannot_follow_the_path_ends_a_run_before_its_first_step(
    tmp_path: Path,
) -> None:
    module = MRDiffusion(TinyNetwork(), BrownianBridge())
    with pytest.raises(ValueError, match="euler-ode needs a path"):
        tiny_trainer(tmp_path, small(samplers=("euler-ode",))).fit(module, loader(), loader())
    assert module.trainer.global_step == 0


def test_everything_is_in_tensorboard(tmp_path: Path) -> None:
    samplers = ("mr-ode-2", "mr-sde-1")
    logger = TensorBoardLogger(tmp_path, name="", version="tb")
    trainer = tiny_trainer(
        tmp_path, small(samplers=samplers, grid_images=2), logger=logger, num_sanity_val_steps=1
    )
    trainer.fit(tiny_module(), loader(), loader())
    events = read_events(trainer)
    tags = events.Tags()
    runs = ["1", "2", "1/mr-sde-1", "2/mr-sde-1"]
    expected = {f"val/{what}@{run}" for run in runs for what in [*PLAIN, "seconds"]}
    expected |= {f"val/{what}@input" for what in PLAIN}
    assert {tag for tag in tags["scalars"] if "@" in tag} == expected
    assert [event.step for event in events.Scalars("val/psnr@2")] == [1, 3]
    assert set(tags["images"]) == {"val/grid", "val/grid/mr-sde-1", "val/quality_vs_nfe"}
    for tag in tags["images"]:
        assert [event.step for event in events.Images(tag)] == [2, 4]
        picture = Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string))
        assert min(picture.size) > 300
        assert np.asarray(picture).std() > 10

    layout = layout_pb2.Layout()
    (event,) = events.Tensors("custom_scalars__config__")
    layout.ParseFromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert list(charts) == ["PSNR in dB (higher is better)", "SSIM (higher is better)", "loss"]
    patterns = charts["PSNR in dB (higher is better)"]
    assert matching(patterns, tags["scalars"]) == {f"val/psnr@{run}" for run in [*runs, "input"]}
    assert matching(charts["loss"], tags["scalars"]) == {"train/loss", "val/loss"}


def matching(patterns: list[str], tags: list[str]) -> set[str]:
    import re

    return {tag for tag in tags if any(re.search(pattern, tag) for pattern in patterns)}


def test_values_are_those_of_the_definition(tmp_path: Path) -> None:
    scores = validate(tmp_path, small(max_images=5, seed=3), batch_size=2)
    module, images = tiny_module().eval(), TinyImages()
    total = {"input": 0.0, "2": 0.0}
    for i in range(5):
        lq, gt = images[i]["lq"][None], images[i]["gt"][None]
        with torch.no_grad():
            restored = MRSampler(nfe=2, order=2)(
                module.denoiser, lq, noise=named_noise(3, [images[i]["name"]])
            )
        total["input"] += float(psnr(lq, gt)) / 5
        total["2"] += float(psnr(restored, gt)) / 5
    assert scores["val/psnr@input"] == pytest.approx(total["input"], abs=1e-4)
    assert scores["val/psnr@2"] == pytest.approx(total["2"], abs=1e-4)


def test_the_distance_of_patches_is_of_each_image(tmp_path: Path) -> None:
    options: dict[str, Any] = {"metrics": ("psnr", "sw"), "nfes": (2,), "max_images": 5}
    scores = validate(tmp_path, small(**options))
    module, images = tiny_module().eval(), TinyImages()
    each = []
    for i in range(5):
        lq, noise = images[i]["lq"][None], named_noise(0, [images[i]["name"]])
        with torch.no_grad():
            restored = MRSampler(nfe=2)(module.denoiser, lq, noise=noise)
        shown = (restored.clamp(0, 1) * 255).round() / 255
        truth = (images[i]["gt"][None] * 255).round() / 255
        each.append(sliced_wasserstein(shown, truth))
    assert scores["val/sw@2"] == pytest.approx(sum(each) / 5, abs=1e-5)
    assert scores.keys() == {f"val/{m}@{run}" for m in ("psnr", "sw") for run in ("2", "input")}
    tiny = validate(tmp_path, small(**options), size=6)  # smaller than a patch
    assert tiny["val/psnr@2"] > 0
    assert math.isnan(tiny["val/sw@2"])


def test_result_does_not_depend_on_batches(tmp_path: Path) -> None:
    runs = [
        validate(
            tmp_path, small(samplers=("mr-sde-1",), batch_size=inner, crop=SIZE), batch_size=outer
        )
        for inner, outer in [(4, 4), (1, 8), (3, 1)]
    ]
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)
    assert runs[0] == pytest.approx(runs[2], rel=1e-5)
    other = validate(tmp_path, small(samplers=("mr-sde-1",), seed=1))
    assert other["val/psnr@2"] != runs[0]["val/psnr@2"]
    assert other["val/psnr@input"] == runs[0]["val/psnr@input"]


@pytest.mark.parametrize(("logger", "expected"), [("csv", True), (False, False)])
def test_without_tensorboard(tmp_path: Path, logger: Any, expected: bool) -> None:
    log = CSVLogger(tmp_path, name="", version="csv") if logger else False
    trainer = tiny_trainer(tmp_path, small(), logger=log)
    trainer.fit(tiny_module(), loader(), loader())
    assert trainer.callback_metrics["val/psnr@2"].isfinite()
    file = tmp_path / "csv" / "metrics.csv"
    assert file.exists() is expected
    if expected:
        rows = list(csv.DictReader(file.open()))
        assert len([row for row in rows if row["val/psnr@2"]]) == 2


class Improve(Callback):
    """Sets the network's last layer by hand, so that the middle epoch is the best."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        distance = abs(trainer.current_epoch - 1)
        with torch.no_grad():
            for parameter in pl_module.network.last.parameters():  # type: ignore[union-attr]
                parameter.fill_(float(distance))


def test_checkpoint_follows_psnr_at_an_nfe(tmp_path: Path) -> None:
    save = ModelCheckpoint(
        tmp_path,
        monitor="val/psnr@2",
        mode="max",
        filename="{epoch}-{val/psnr@2:.2f}",
        auto_insert_metric_name=False,
    )
    trainer = tiny_trainer(tmp_path, small(), Improve(), save, max_epochs=3)
    trainer.fit(tiny_module(), loader(), loader())
    assert Path(save.best_model_path).name.startswith("1-")
    assert save.best_model_score is not None
    assert f"{float(save.best_model_score):.2f}" in Path(save.best_model_path).name


def test_averaged_weights_are_sampled(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    module, ema = tiny_module(), EMA(decay=0.9, warmup=False)
    trainer = tiny_trainer(tmp_path, ema, small(), save)
    trainer.fit(module, loader(), loader())
    logged = float(trainer.callback_metrics["val/psnr@2"])
    checkpoint = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    scores = {}
    for key in ("state_dict", "current_model_state"):
        fresh = tiny_module()
        fresh.load_state_dict(checkpoint[key])
        again = tiny_trainer(tmp_path, small()).validate(fresh, loader(), verbose=False)
        scores[key] = again[0]["val/psnr@2"]
    assert logged == pytest.approx(scores["state_dict"], abs=1e-4)
    assert logged != pytest.approx(scores["current_model_state"], abs=1e-4)


@contextmanager
def untouched_random_state() -> Iterator[None]:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002  (the global generator is what is watched)
    before = torch.get_rng_state(), json.dumps(np.random.get_state()[1].tolist())  # noqa: NPY002
    pure = random.getstate()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert json.dumps(np.random.get_state()[1].tolist()) == before[1]  # noqa: NPY002
    assert random.getstate() == pure


def test_random_state_is_left_alone(tmp_path: Path) -> None:
    callback, module = small(samplers=("mr-sde-1", "posterior")), tiny_module()
    trainer = tiny_trainer(tmp_path, logger=TensorBoardLogger(tmp_path))
    trainer.validate(module, loader(), verbose=False)  # attaches the module
    batch = next(iter(loader()))
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    with untouched_random_state():
        callback.setup(trainer, module, "validate")
        callback.on_validation_start(trainer, module)
        callback.on_validation_batch_end(trainer, module, None, batch, 0)
        draw_grid(callback._rows["posterior"], columns=list("abcd"), title="")


def test_test_stage_has_its_own_keys(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, small(), logger=TensorBoardLogger(tmp_path))
    (scores,) = trainer.test(tiny_module(), loader(), verbose=False)
    assert {"test/psnr@2", "test/ssim_y@input", "test/seconds@1"} <= scores.keys()
    assert not any(key.startswith("val") for key in scores)
    assert set(read_events(trainer).Tags()["images"]) == {"test/grid", "test/quality_vs_nfe"}


def test_lpips_where_its_weights_are(tmp_path: Path, shared: Path) -> None:
    weights = str(shared / "lpips" / "alexnet-features.pth")
    scores = validate(tmp_path, small(lpips_weights=weights))
    assert scores["val/lpips@input"] > 0
    assert {"val/lpips@1", "val/lpips@2"} <= scores.keys()
    without = validate(tmp_path, small(lpips_weights=weights, metrics=PLAIN))
    assert not any("lpips" in key for key in without)


@pytest.fixture
def alexnet(tmp_path: Path) -> dict[str, Any]:
    """Options for metrics of sets."""
    file = write_random_features(tmp_path / "alexnet.pth", ALEXNET)
    return {"lpips_weights": str(file), "backbone": "alexnet"}


def test_distances_of_sets_are_of_all_images_together(
    tmp_path: Path, alexnet: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lightning.pytorch")
    callback = small(metrics=("fid", "psnr", "kid"), nfes=(2,), max_images=5, **alexnet)
    known = [key for key in callback.logged_keys() if "seconds" not in key]
    scores = validate(tmp_path, callback, batch_size=2)
    assert (
        {*known}
        == {*scores}
        == {f"val/{m}@{r}" for m in ("fid", "psnr", "kid") for r in ("input", 2)}
    )
    assert [line for line in caplog.messages if "features" in line] == [
        "FID: features of alexnet",
        "KID: features of alexnet",
    ]
    features = Features.find("alexnet", alexnet["lpips_weights"])
    assert features is not None
    module, images = tiny_module().eval(), [TinyImages()[i] for i in range(5)]
    lq, gt = (torch.stack([image[key] for image in images]) for key in ("lq", "gt"))
    with torch.no_grad():
        noise = named_noise(0, [image["name"] for image in images])
        restored = MRSampler(nfe=2)(module.denoiser, lq, noise=noise)
    for run, shown in (("2", restored), ("input", lq)):
        pair = features(shown), features(gt)
        assert scores[f"val/fid@{run}"] == pytest.approx(frechet_distance(*pair), rel=1e-3)
        assert scores[f"val/kid@{run}"] == pytest.approx(kernel_distance(*pair), rel=1e-3)
    assert scores["val/fid@2"] > 0


def test_distances_of_sets_in_a_fit(tmp_path: Path, alexnet: dict[str, Any]) -> None:
    """A checkpoint can follow them, a figure has them, and one image alone is no set."""
    callback = small(metrics=("psnr", "fid"), **alexnet)
    save = ModelCheckpoint(tmp_path, monitor="val/fid@2", mode="min")
    trainer = tiny_trainer(tmp_path, callback, save, logger=TensorBoardLogger(tmp_path))
    trainer.fit(tiny_module(), loader(), loader())
    assert save.best_model_score == min(e.value for e in read_events(trainer).Scalars("val/fid@2"))
    panels = callback._keys.panels(trainer.callback_metrics, "val", callback._keys.runs)
    assert [panel.label for panel in panels] == [
        "PSNR in dB (higher is better)",
        "FID (lower is better)",
    ]
    alone = validate(tmp_path, small(metrics=("psnr", "fid"), max_images=1, **alexnet))
    tiny = validate(tmp_path, small(metrics=("psnr", "fid"), **alexnet), size=24)
    for scores in (alone, tiny):
        assert scores["val/psnr@2"] > 0
        assert math.isnan(scores["val/fid@2"])


def test_any_metric_can_be_followed(tmp_path: Path, alexnet: dict[str, Any]) -> None:
    """What cannot be measured is not logged, and told."""
    vgg = str(write_random_features(tmp_path / "vgg.pth", VGG16))
    callback = small(
        metrics=VALIDATION_METRICS, max_images=2, nfes=(1,), vgg_weights=vgg, **alexnet
    )
    scores = validate(tmp_path, callback, size=192, count=2)
    assert {*scores} == {f"val/{m}@{run}" for m in VALIDATION_METRICS for run in ("input", 1)}
    assert all(math.isfinite(value) for value in scores.values())
    without = small(metrics=("fid", "dists", "psnr")).logged_keys()
    assert not any("fid" in key or "dists" in key for key in without)


def test_perfect_input_keeps_the_mean_finite(tmp_path: Path) -> None:
    class Same(TinyImages):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            return {**item, "lq": item["gt"]}

    data = torch.utils.data.DataLoader(Same(2), batch_size=2)
    (scores,) = tiny_trainer(tmp_path, small()).validate(tiny_module(), data, verbose=False)
    assert scores["val/psnr@input"] == 100.0


class Mixed(TinyImages):
    """One photo of the usual size and three that no window of SSIM fits into."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return TinyImages(4, SIZE if index == 1 else 8)[index]


def test_images_too_small_for_a_metric_do_not_count_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lightning.pytorch")
    mixed = torch.utils.data.DataLoader(Mixed(4), batch_size=1)
    alone = torch.utils.data.DataLoader(torch.utils.data.Subset(Mixed(4), [1]), batch_size=1)
    found, expected = (
        tiny_trainer(tmp_path, small()).validate(tiny_module(), data, verbose=False)[0]
        for data in (mixed, alone)
    )
    assert found["val/ssim@2"] == pytest.approx(expected["val/ssim@2"])
    assert found["val/psnr@2"] != pytest.approx(expected["val/psnr@2"])
    said = [line for line in caplog.messages if "note:" in line]
    assert said == ["note: validation images of 8x8 are without ssim, ssim_y"]


def test_every_logged_key_is_known_before(tmp_path: Path) -> None:
    callback, module = small(samplers=("mr-ode-1", "mr-sde-1")), tiny_module()
    known = {*callback.logged_keys(), *module.logged_keys()}
    trainer = tiny_trainer(tmp_path, callback, max_epochs=1)
    trainer.fit(module, loader(), loader(size=8))
    assert {*trainer.callback_metrics} == known
    assert trainer.callback_metrics["val/ssim@2"].isnan()  # of no image at all


def test_crop_and_image_limit(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    module = tiny_module()
    module.network.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    callback = small(crop=20, max_images=6, batch_size=3, nfes=(1,), samplers=("mr-ode-1",))
    tiny_trainer(tmp_path, callback).validate(module, loader(), verbose=False)
    sampled = [shape for shape in seen if shape[-1] == 20]
    first, second = [(3, 3, 20, 20), (1, 3, 20, 20)], [(2, 3, 20, 20)]
    assert sampled == [*first, *first, *second]  # the very first is a warm-up
    image = torch.arange(35.0).view(1, 1, 5, 7)
    torch.testing.assert_close(centre_crop(image, 3), image[..., 1:4, 2:5])
    assert centre_crop(image, 99).shape == image.shape


class Large(TinyImages):
    """Two photos of 300 x 420 pixels."""

    def __init__(self) -> None:
        super().__init__(2)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        enlarged = {
            key: torch.nn.functional.interpolate(item[key][None], (300, 420))[0]
            for key in ("lq", "gt")
        }
        return {**item, **enlarged}


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_whole_images_that_do_not_fit_are_tiled(tmp_path: Path, stage: str) -> None:
    largest = 300 * 300

    def short_of_memory(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        x = args[0]
        if len(x) * x.shape[-2] * x.shape[-1] > largest:
            raise torch.OutOfMemoryError("no memory")

    def scores(module: LightningModule) -> dict[str, float]:
        trainer = tiny_trainer(tmp_path, small(metrics=("psnr",)))
        data = torch.utils.data.DataLoader(Large(), batch_size=2)
        (all_scores,) = getattr(trainer, stage)(module, data, verbose=False)
        return {key: v for key, v in all_scores.items() if "psnr" in key}

    module = tiny_module()
    expected = scores(module)
    module.network.register_forward_pre_hook(short_of_memory)
    assert len(expected) == 3
    module.validation_step = lambda *_: None  # type: ignore[method-assign]
    module.test_step = lambda *_: None  # type: ignore[method-assign]
    assert scores(module) == pytest.approx(expected, abs=1e-3)


def test_network_runs_in_the_trainers_precision() -> None:
    module = tiny_module()
    dtypes = set()
    module.network.last.register_forward_hook(lambda *args: dtypes.add(args[-1].dtype))
    context = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    denoiser = AutocastDenoiser(module.denoiser, context)
    with torch.no_grad():
        restored = MRSampler(nfe=2)(denoiser, torch.rand(1, 3, 16, 16))
    assert dtypes == {torch.bfloat16}
    assert restored.dtype == torch.float32
    assert isinstance(denoiser(restored, torch.tensor(0.5), restored), Prediction)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samplers": ("mr-ode-9",)}, "mr-ode-9"),
        ({"metrics": ("psnr", "mse")}, "mse"),
        ({"nfes": ()}, "at least one"),
        ({"nfes": (0,)}, "nfe"),
        ({"max_images": 0}, "positive"),
        ({"crop": 0}, "positive"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingValidation(**options)


def test_grid_of_images_of_different_sizes() -> None:
    rows = [
        GridRow(
            name="a/very/long/path/to/an/image/that/does/not/fit/" + "x" * 40,
            tiles=[np.full((height, width, 3), 90, np.uint8)] * 2,
            captions=["20.00 dB", ""],
        )
        for height, width in [(40, 64), (700, 300), (200, 240)]
    ]
    picture = draw_grid(rows, columns=["degraded", "ground truth"], title="mr-ode-2, step 1")
    assert picture.dtype == np.uint8
    # 40 x 64 is enlarged five times, 700 x 300 shrunk to 512, and the third left as it is.
    assert picture.shape == (2 * 24 + 200 + 512 + 200 + 3 * 30, 24 + 2 * (320 + 6), 3)
