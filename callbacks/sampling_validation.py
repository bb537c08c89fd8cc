"""Validation by what counts: images restored by sampling, at several numbers of network calls."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from callbacks.loggers import chart_layout, find_writer
from callbacks.pictures import GridRow, draw_grid, draw_quality
from callbacks.restoring import restore_timed
from callbacks.results import Keys, Result, SamplerAt, grid_rows
from mrdiff.diffusion.denoiser import Denoiser, widened
from mrdiff.metrics import LPIPS, find_lpips_weights, measurable, measure
from mrdiff.networks.conditions import make_context
from mrdiff.photo import centre_crop
from mrdiff.restoration.tiles import Tiler
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.names import METRICS

# Identical images have infinite PSNR, and one of them would make every mean infinite.
MAX_PSNR = 100.0


def _stage(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def _share(loaders: Any) -> tuple[int, int]:
    """Among how many processes the images of the first loader are shared, and which this is."""
    first = loaders[0] if isinstance(loaders, list) and loaders else loaders
    sampler = getattr(first, "sampler", None)
    return getattr(sampler, "num_replicas", 1), getattr(sampler, "rank", 0)


class SamplingValidation(Callback):
    """Restores validation images with every sampler at every NFE, and logs how good they are.

    Log keys, here for NFE 5: ``val/psnr@5``, ``val/ssim@5`` on RGB, ``val/psnr_y@5``,
    ``val/ssim_y@5`` on luma, ``val/lpips@5`` if its weights are on this machine, ``val/seconds@5``
    for one image, and the degraded input's own ``val/psnr@input``, ... The first sampler has these
    plain keys, others append their name: ``val/psnr@5/mr-sde-1``. In ``trainer.test`` they begin
    with ``test/``. Means are over images, weighted rightly over batches and processes, so
    ``ModelCheckpoint(monitor="val/psnr@5", mode="max")`` works. Images that a metric cannot take,
    being smaller than its window, do not count in its mean.

    With TensorBoard there are also ``val/grid`` (degraded, restored at each NFE, ground truth),
    ``val/quality_vs_nfe``, and a custom-scalars layout with all NFEs on one chart.

    Noise comes from (seed, image name), so results neither depend on batches and processes nor
    touch the global random state. All work is done in the batch hook, because after a validation
    epoch an EMA callback may already have put the raw weights back. Lightning's sanity check is
    skipped. Only the first validation dataloader is used. Whole images that memory cannot hold go
    through the network in tiles.

    The module needs an attribute ``denoiser``; batches are dicts with ``lq``, ``gt``, ``name``.

    Args:
        samplers: names from ``mrdiff.system.names.SAMPLERS``.
        nfes: numbers of network calls.
        metrics: names from ``mrdiff.system.names.METRICS``.
        max_images: images restored per validation, over all processes; the first of the loader, and
            as many of each task where the data names several. A test restores all.
        crop: side in px of the centre crop that is restored and measured in validation; None for
            whole images. A test takes them whole.
        batch_size: crops restored at once, whatever the loader's batch size; whole images go one
            by one.
        grid_images: rows of the image grid; 0 for no grid.
        seed: of the noise.
        lpips_weights: file with AlexNet's features; None looks where ``find_lpips_weights`` does.

    Raises:
        ValueError: for unknown samplers or metrics, empty lists, and numbers out of range.
    """

    def __init__(
        self,
        *,
        samplers: Sequence[str] = ("mr-ode-2",),
        nfes: Sequence[int] = (1, 2, 5, 10),
        metrics: Sequence[str] = METRICS,
        max_images: int = 8,
        crop: int | None = 256,
        batch_size: int = 4,
        grid_images: int = 4,
        seed: int = 0,
        lpips_weights: str | None = None,
    ) -> None:
        if not samplers or not nfes:
            raise ValueError("SamplingValidation needs at least one sampler and one NFE")
        unknown = [name for name in metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"unknown metrics {unknown}; known: {', '.join(METRICS)}")
        if min(max_images, batch_size) < 1 or grid_images < 0 or (crop is not None and crop < 1):
            raise ValueError("max_images, batch_size and crop must be positive, grid_images >= 0")
        self.samplers = tuple(samplers)
        self.nfes = tuple(sorted(set(nfes)))
        self.metrics = tuple(metrics)
        self.max_images = max_images
        self.crop = crop
        self.batch_size = batch_size
        self.grid_images = grid_images
        self.seed = seed
        self.lpips_weights = lpips_weights
        self._keys = Keys(samplers=self.samplers, nfes=self.nfes)
        self._runs = {run: make_sampler(run.sampler, nfe=run.nfe) for run in self._keys.runs}
        self._lpips: LPIPS | None = None
        self._seen: Counter[int] = Counter()
        self._share = (1, 0)
        self._warm = False
        self._tiler: Tiler | None = None
        self._told = False  # that some images are too small
        self._rows: dict[str, list[GridRow]] = {}
        self._layout_written_for: Any = None

    def logged_keys(self) -> list[str]:
        """What a run that validates logs, for those who follow a metric."""
        found = "lpips" in self.metrics and find_lpips_weights(self.lpips_weights) is not None
        metrics = [name for name in self.metrics if found or name != "lpips"]
        runs = (None, *self._keys.runs)
        keys = [self._keys.key("val", metric, run) for metric in metrics for run in runs]
        return keys + [self._keys.key("val", "seconds", run) for run in self._keys.runs]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for sampler in self._runs.values():
            sampler.check(cast(Denoiser, pl_module.denoiser).process)  # now, not at step 1000
        if "lpips" not in self.metrics or self._lpips is not None:
            return
        self._lpips = LPIPS.find(self.lpips_weights)
        if self._lpips is None:
            rank_zero_info(
                "LPIPS is not logged: no AlexNet weights here (see mrdiff.metrics.lpips)"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the custom-scalars layout, once a log."""
        writer = find_writer(trainer)
        if writer is not None and writer is not self._layout_written_for:
            writer.add_custom_scalars(chart_layout(self._keys.charts(self._measured())))
            self._layout_written_for = writer

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start afresh."""
        self._seen.clear()
        self._share = _share(
            trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        )
        self._warm = False
        self._rows = {name: [] for name in self.samplers}
        whole = trainer.testing or self.crop is None
        self._tiler = Tiler(cast(Denoiser, pl_module.denoiser), "auto" if whole else "off")
        if self._lpips is not None:
            self._lpips.to(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Restore and measure the images of a batch."""
        if dataloader_idx == 0 and not trainer.sanity_checking:
            self._measure_batch(trainer, pl_module, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the pictures."""
        writer = find_writer(trainer)
        if writer is None or trainer.sanity_checking or not self._seen:
            return
        step, stage = trainer.global_step, _stage(trainer)
        columns = ["degraded", *(f"NFE {nfe}" for nfe in self.nfes), "ground truth"]
        for sampler, rows in self._rows.items():
            if rows:
                grid = draw_grid(rows, columns=columns, title=f"{sampler}, step {step}")
                tag = f"{stage}/grid{self._keys.suffix(sampler)}"
                writer.add_image(tag, grid, step, dataformats="HWC")
        panels = self._keys.panels(trainer.callback_metrics, stage)
        if panels:
            figure = draw_quality(panels, title=f"Quality against NFE, step {step}")
            writer.add_figure(f"{stage}/quality_vs_nfe", figure, step, close=False)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    def _most(self, trainer: Trainer, task: int) -> float:
        """How many images of a task this process restores; the tasks come in turns."""
        if trainer.testing:
            return math.inf
        processes, rank = self._share
        turns = max(1, len(getattr(getattr(trainer, "datamodule", None), "tasks", ())))
        ours = [i for i in range(processes) if (i * turns + task) % processes == rank]
        return sum(len(range(i, self.max_images, processes)) for i in ours)

    def _choose(self, trainer: Trainer, batch: Any) -> list[int]:
        """Which images of a batch are restored: so many of each task, or of all of them."""
        tasks = batch["degradation"].tolist() if "degradation" in batch else [0] * len(batch["lq"])
        chosen = []
        for i, task in enumerate(tasks):
            if self._seen[task] < self._most(trainer, task):
                self._seen[task] += 1
                chosen.append(i)
        return chosen

    def _measured(self) -> list[str]:
        without = () if self._lpips is not None else ("lpips",)
        return [metric for metric in self.metrics if metric not in without]

    @torch.no_grad()
    def _measure_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        chosen = self._choose(trainer, batch)
        if not chosen and self._warm:
            return
        # Lightning divides the sum of the sizes by the number of processes, as an integer.
        weight = trainer.world_size if chosen else 0
        chosen = chosen or [0]  # without weight: all processes must log the same keys
        names = [batch["name"][i] for i in chosen]
        crop = None if trainer.testing else self.crop
        lq, gt = (centre_crop(widened(batch[key][chosen]), crop) for key in ("lq", "gt"))
        mask = centre_crop(widened(batch["mask"][chosen]), crop) if "mask" in batch else None
        results = self._restore_all(trainer, lq, gt, names, mask)
        for run, result in results.items():
            for metric, values in result.scores.items():
                # Nor has what could not be measured any weight.
                mean = (values.clamp(max=MAX_PSNR) if "psnr" in metric else values).mean()
                pl_module.log(
                    self._keys.key(_stage(trainer), metric, run),
                    mean if len(values) else 0.0,
                    on_step=False,
                    on_epoch=True,
                    batch_size=len(values) * weight,
                    sync_dist=True,
                    add_dataloader_idx=False,
                )
        if weight and find_writer(trainer) is not None:
            for sampler, rows in self._rows.items():
                columns = [r for run, r in results.items() if not run or run.sampler == sampler]
                rows += grid_rows(names[: self.grid_images - len(rows)], gt, columns)

    def _restore_all(
        self,
        trainer: Trainer,
        lq: Tensor,
        gt: Tensor,
        names: Sequence[str],
        mask: Tensor | None,
    ) -> dict[SamplerAt | None, Result]:
        """The input itself under None, then every run's images and scores with its ``seconds``."""
        assert self._tiler is not None
        restore = partial(
            restore_timed,
            tiler=self._tiler,
            lq=lq,
            context=make_context(self._tiler.denoiser.network, lq, mask=mask),
            autocast=trainer.precision_plugin.forward_context,
            names=names,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        if not self._warm:  # the first call may compile or tune kernels: not to be timed
            restore(make_sampler("mr-ode-1", nfe=1))
            self._warm = True
        results: dict[SamplerAt | None, Result] = {None: Result(lq, self._scores(lq, gt))}
        for run, sampler in self._runs.items():
            restored, seconds = restore(sampler)
            scores = self._scores(restored, gt)
            scores["seconds"] = lq.new_full((len(names),), seconds / len(names))
            results[run] = Result(restored, scores)
        return results

    def _scores(self, image: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Every metric that is logged; one for which the images are too small is empty."""
        names, (height, width) = self._measured(), gt.shape[-2:]
        fitting = measurable(names, height, width)
        if not self._told and len(fitting) < len(names):
            self._told = True
            left_out = ", ".join(name for name in names if name not in fitting)
            rank_zero_info(f"note: validation images of {height}x{width} are without {left_out}")
        scores = measure(image, gt, names=fitting, lpips=self._lpips)
        return {name: scores.get(name, gt.new_zeros(0)) for name in names}
