"""Validation by what counts: images restored by sampling, at several numbers of network calls."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.choosing import Choice
from callbacks.loggers import can_draw, chart_layout, draw, find_writer
from callbacks.pictures import GridRow, draw_grid, draw_quality
from callbacks.restoring import restore_timed
from callbacks.results import Keys, Result, SamplerAt, grid_rows
from callbacks.scoring import FEATURES, Scorer, Scores, SetScores
from callbacks.stages import is_fitting, stage_name
from callbacks.teacher import Teacher, TeacherScores
from mrdiff.checkpoints.checks import homes
from mrdiff.diffusion.denoiser import Denoiser, widened
from mrdiff.networks.conditions import make_context
from mrdiff.photo import centre_crop
from mrdiff.restoration.tiles import Tiler
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.system.names import MAX_PSNR, METRICS


class _Images(NamedTuple):
    """What is restored, and what it is measured against, ``[B, 3, H, W]``."""

    names: list[str]
    lq: Tensor
    gt: Tensor
    mask: Tensor | None


class SamplingValidation(Callback):
    """Restores validation images with every sampler at every NFE, and logs how good they are.

    Log keys, here for NFE 5: ``val/psnr@5``, ``val/ssim@5`` on RGB, ``val/psnr_y@5``,
    ``val/ssim_y@5`` on luma, ``val/lpips@5`` if its weights are on this machine, ``val/seconds@5``
    for one image, and the degraded input's own ``val/psnr@input``, ... The first sampler has these
    plain keys, others append their name: ``val/psnr@5/mr-sde-1``. In ``trainer.test`` they begin
    with ``test/``. Means are over images, weighted rightly over batches and processes, so
    ``ModelCheckpoint(monitor="val/psnr@5", mode="max")`` works. Images that a metric cannot take,
    being smaller than its window, do not count in its mean. ``val/fid@5`` and ``val/kid@5`` are of
    all images together, by the features of the network that the log names once; of fewer images
    than it has features they compare runs on the same images and nothing else.

    Loggers also get the pictures ``val/grid`` (degraded, restored at each NFE, ground truth) and
    ``val/quality_vs_nfe``, and TensorBoard a custom-scalars layout with all NFEs on one chart.

    Noise comes from (seed, image name), so results neither depend on batches and processes nor
    touch the global random state. All work is done in the batch hook, because after a validation
    epoch an EMA callback may already have put the raw weights back. Lightning's sanity check is
    skipped. Only the first validation dataloader is used. Whole images that memory cannot hold go
    through the network in tiles.

    The module needs an attribute ``denoiser``; batches are dicts with ``lq``, ``gt``, ``name``.

    Args:
        samplers: names from ``mrdiff.system.names.SAMPLERS``.
        nfes: numbers of network calls.
        metrics: names from ``mrdiff.system.names.VALIDATION_METRICS``.
        max_images: images restored per validation, over all processes; the first of the loader, and
            as many of each task where the data names several. A test restores all.
        crop: side in px of the centre crop that is restored and measured in validation; None for
            whole images. A test takes them whole.
        batch_size: crops restored at once, whatever the loader's batch size; whole images go one
            by one.
        grid_images: rows of the image grid; 0 for no grid.
        seed: of the noise.
        lpips_weights: file with AlexNet's features; None looks for it.
        vgg_weights: file with VGG16's features, for ``dists``; None looks for it.
        backbone: of ``mrdiff.system.names.BACKBONES``, for ``fid`` and ``kid``; None takes the
            first whose weights are here.
        teacher: a trained model, measured once a fit on the same images; its keys and curves have
            its name: ``val/psnr@10/teacher``.

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
        vgg_weights: str | None = None,
        backbone: str | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        if not samplers or not nfes:
            raise ValueError("SamplingValidation needs at least one sampler and one NFE")
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
        self._keys = Keys(samplers=self.samplers, nfes=self.nfes)
        self._runs = {run: make_sampler(run.sampler, nfe=run.nfe) for run in self._keys.runs}
        self._teacher = TeacherScores(teacher if teacher is not None else Teacher())
        self._scorer = Scorer(
            self.metrics, lpips_weights=lpips_weights, vgg_weights=vgg_weights, backbone=backbone
        )
        self._sets = SetScores()
        self._choice = Choice(max_images)
        self._warm = False
        self._tiler: Tiler | None = None
        self._rows: dict[str, list[GridRow]] = {}
        self._layout_written_for: Any = None

    def logged_keys(self) -> list[str]:
        """What a run that validates logs, for those who follow a metric."""
        metrics = self._scorer.measured
        runs = self._runs_of_fit()
        keys = [self._keys.key("val", metric, run) for metric in metrics for run in (None, *runs)]
        return keys + [self._keys.key("val", "seconds", run) for run in runs]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for sampler in self._runs.values():
            sampler.check(cast(Denoiser, pl_module.denoiser).process)  # now, not at step 1000
        self._scorer.tell()

    def state_dict(self) -> dict[str, Any]:
        return self._teacher.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the teacher; write the custom-scalars layout, once a log."""
        self._teacher.load(allow=homes(cast(Denoiser, pl_module.denoiser)))
        writer = find_writer(trainer)
        if writer is not None and writer is not self._layout_written_for:
            charts = self._keys.charts(self._scorer.measured, self._runs_of_fit())
            writer.add_custom_scalars(chart_layout(charts))
            self._layout_written_for = writer

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start afresh."""
        self._choice.start(trainer)
        self._sets.start()
        self._warm = False
        self._rows = {name: [] for name in self.samplers}
        whole = trainer.testing or self.crop is None
        self._tiler = Tiler(cast(Denoiser, pl_module.denoiser), "auto" if whole else "off")
        self._scorer.to(pl_module.device)

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
            self._measure_batch(trainer, pl_module, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of all images together."""
        for (metric, run), value in self._sets.values(self._scorer.of_sets).items():
            key = self._keys.key(stage_name(trainer), metric, run)
            pl_module.log(key, value, sync_dist=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the pictures."""
        if not trainer.sanity_checking:
            self._teacher.release()
        if trainer.sanity_checking or not (can_draw(trainer) and self._choice.seen):
            return
        step, stage = trainer.global_step, stage_name(trainer)
        columns = ["degraded", *(f"NFE {nfe}" for nfe in self.nfes), "ground truth"]
        for sampler, rows in self._rows.items():
            if rows:
                grid = draw_grid(rows, columns=columns, title=f"{sampler}, step {step}")
                draw(trainer, f"{stage}/grid{self._keys.suffix(sampler)}", grid, step)
        runs = self._runs_of_fit() if is_fitting(trainer) else self._keys.runs
        panels = self._keys.panels(trainer.callback_metrics, stage, runs)
        if panels:
            figure = draw_quality(panels, title=f"Quality against NFE, step {step}")
            draw(trainer, f"{stage}/quality_vs_nfe", figure, step)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def _runs_of_fit(self) -> list[SamplerAt]:
        """With those of the teacher, which an evaluation alone leaves out."""
        return [*self._keys.runs, *self._teacher.runs]

    @torch.no_grad()
    def _measure_batch(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        chosen = self._choice.of(trainer, batch)
        if not chosen and self._warm:
            return
        # Lightning divides the sum of the sizes by the number of processes, as an integer.
        weight = trainer.world_size if chosen else 0
        chosen = chosen or [0]  # without weight: all processes must log the same keys
        crop = None if trainer.testing else self.crop
        lq, gt = (centre_crop(widened(batch[key][chosen]), crop) for key in ("lq", "gt"))
        mask = centre_crop(widened(batch["mask"][chosen]), crop) if "mask" in batch else None
        images = _Images([batch["name"][i] for i in chosen], lq, gt, mask)
        results = self._restore_all(trainer, images)
        scores: dict[SamplerAt | None, Scores] = {r: each.scores for r, each in results.items()}
        if is_fitting(trainer):

            def measure(model: Denoiser, sampler: Sampler) -> Scores:
                model = cast(Denoiser, trainer.precision_plugin.convert_module(model))
                tiler = Tiler(model, "off" if self.crop else "auto")
                return self._restore(trainer, tiler, sampler, images).scores

            of_teacher = self._teacher.of((batch_idx, *images.names), pl_module.device, measure)
            scores |= dict[SamplerAt | None, Scores](of_teacher.items())
        self._log(trainer, pl_module, scores, weight)
        if self._scorer.of_sets:  # of images without weight nothing is kept
            kept = slice(len(gt) if weight else 0)
            features = {run: of_run[FEATURES][kept] for run, of_run in scores.items()}
            self._sets.add(self._scorer.features(gt)[kept], features)
        if weight and can_draw(trainer):
            for sampler, rows in self._rows.items():
                columns = [r for run, r in results.items() if not run or run.sampler == sampler]
                rows += grid_rows(images.names[: self.grid_images - len(rows)], gt, columns)

    def _log(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        scores: Mapping[SamplerAt | None, Scores],
        weight: int,
    ) -> None:
        """The means over a batch, which count as ``weight`` says."""
        for run, of_run in scores.items():
            for metric, values in of_run.items():
                if metric == FEATURES:
                    continue
                # Nor has what could not be measured any weight.
                mean = (values.clamp(max=MAX_PSNR) if "psnr" in metric else values).mean()
                pl_module.log(
                    self._keys.key(stage_name(trainer), metric, run),
                    mean if len(values) else 0.0,
                    on_step=False,
                    on_epoch=True,
                    batch_size=len(values) * weight,
                    sync_dist=True,
                    add_dataloader_idx=False,
                )

    def _restore_all(self, trainer: Trainer, images: _Images) -> dict[SamplerAt | None, Result]:
        """The input itself under None, then every run's images and scores."""
        assert self._tiler is not None
        if not self._warm:  # the first call may compile or tune kernels: not to be timed
            self._restore(trainer, self._tiler, make_sampler("mr-ode-1", nfe=1), images)
            self._warm = True
        given = Result(images.lq, self._scorer.scores(images.lq, images.gt))
        results: dict[SamplerAt | None, Result] = {None: given}
        for run, sampler in self._runs.items():
            results[run] = self._restore(trainer, self._tiler, sampler, images)
        return results

    def _restore(self, trainer: Trainer, tiler: Tiler, sampler: Sampler, images: _Images) -> Result:
        """What a sampler makes of images; among the scores the ``seconds`` for each."""
        names, lq, gt, mask = images
        restored, seconds = restore_timed(
            sampler,
            tiler,
            lq,
            context=make_context(tiler.denoiser.network, lq, mask=mask),
            autocast=trainer.precision_plugin.forward_context,
            names=names,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        scores = self._scorer.scores(restored, gt)
        return Result(restored, {**scores, "seconds": lq.new_full((len(lq),), seconds / len(lq))})
