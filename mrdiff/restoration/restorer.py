"""Any photo in, the same kind of photo out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from mrdiff.acceleration.precision import set_precision, trained_in
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import Checkpoint, load_model, open_checkpoint
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.prediction import Prediction
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.networks.conditions import check_task, make_context
from mrdiff.networks.protocol import Context, known_tasks
from mrdiff.photo import like_original, to_rgb
from mrdiff.photo.kinds import Picture, channels_of
from mrdiff.photo.sheets import Comparison
from mrdiff.restoration.ensemble import Ensemble, check_spread, draw, numbered
from mrdiff.restoration.features import FeatureMaker, check_features, gather_features
from mrdiff.restoration.graphs import Graphs, sample
from mrdiff.restoration.sharing import Shared
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.restoration.tiles import Tiler
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import DEFAULT_NAME, make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.solvers.timegrid import Grid
from mrdiff.system.devices import uploaded
from mrdiff.tuning.checkpoint_sampler import read_sampler

__all__ = ["Restorer"]

# Called as (step, nfe, x0) after each network call.
Preview = Callable[[int, int, Tensor], None]
Judged = tuple[str, float]  # a task, and how probable it is
OnTask = Callable[[list[Judged]], None]


class Restorer(Shared):
    """Restore photos with a trained model.

    The result depends on (model, photo, seed, name) alone: not on the batch a photo is in, nor,
    but for the network's reach, on the tiles.

    Args:
        denoiser: a trained model in evaluation mode.
        sampler: a name of :data:`mrdiff.system.names.SAMPLERS`, or a sampler.
        nfe: network calls a photo, if the sampler is given by name.
        seed: of the noise.
        tile: as for :class:`mrdiff.restoration.tiles.Tiler`.
        task: what degraded the photos, for a model of several tasks; ``"auto"`` lets it judge.
        features: makes the features of a photo ``[1, 3, H, W]`` for a model that takes some, such
            as :class:`mrdiff.official.daclip.ImageController`.

    Raises:
        ValueError: an option is wrong, or does not fit the model.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        sampler: str | Sampler = "mr-ode-2",
        nfe: int = 5,
        seed: int = 0,
        tile: str | int = "auto",
        task: str = "auto",
        features: FeatureMaker | None = None,
    ) -> None:
        check_features(denoiser.network, task, features)
        check_task(task, known_tasks(denoiser.network))
        self.denoiser = denoiser
        self.sampler = make_sampler(sampler, nfe=nfe) if isinstance(sampler, str) else sampler
        self.seed = seed
        self.graphs = Graphs()
        self.tiler = Tiler(denoiser, tile, graphs=self.graphs)
        self.task = task
        self.features = features

    @classmethod
    def from_checkpoint(
        cls,
        source: str | os.PathLike[str] | Checkpoint,
        *,
        device: str = "auto",
        sampler: str | None = None,
        nfe: int | None = None,
        grid: Grid | None = None,
        temperature: float | None = None,
        seed: int = 0,
        tile: str | int = "auto",
        task: str = "auto",
        features: FeatureMaker | None = None,
        precision: str = "auto",
        allow: Sequence[str] = (),
    ) -> Restorer:
        """Load a ``.ckpt``, an exported folder, ``hf://ORG/NAME`` or an opened checkpoint.

        Without a sampler's name the checkpoint's own is used, else ``mr-ode-2``; without ``nfe``
        that sampler's, else 5. ``grid`` (a name, a ``.yaml`` file, times) and ``temperature``
        replace the sampler's own; ``precision`` is that of
        :func:`mrdiff.acceleration.precision.set_precision`; classes of the packages in ``allow``
        may be built.

        Raises:
            CheckpointError: the file is missing or is no checkpoint of ours.
            ValueError: the sampler, its grid or another option is wrong.
        """
        checkpoint = open_checkpoint(source)
        denoiser = load_model(checkpoint, device=device, allow=allow)
        set_precision(denoiser.network, precision, trained=trained_in(checkpoint))
        stored = read_sampler(checkpoint) if sampler is None else None
        spec = sampler or stored or DEFAULT_NAME
        chosen = make_sampler(spec, nfe=nfe, grid=grid, temperature=temperature)
        try:
            chosen.check(denoiser.process)  # what does not fit is known at once
        except ValueError as error:
            if stored is None or grid is not None:
                raise
            raise CheckpointError(
                f"{checkpoint.path}: the sampler in it does not fit ({error}): name a sampler"
            ) from error
        made = cls(denoiser, sampler=chosen, seed=seed, tile=tile, task=task, features=features)
        made.description = checkpoint.config
        return made

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.denoiser.parameters()).device

    @torch.no_grad()  # not inference_mode: users may compute with what they get
    def restore(
        self,
        lq: Tensor,
        names: Sequence[str],
        *,
        mask: Tensor | None = None,
        features: Sequence[Context] | None = None,
        callback: Preview | None = None,
        on_task: OnTask | None = None,
    ) -> Tensor:
        """Restore RGB images ``[B, 3, H, W]`` in [0, 1] on any device; float32, clamped, on theirs.

        On the CPU they go through the network one by one: the last bits of a convolution depend on
        how many images it is given, and those of a file must not.

        Args:
            lq: the degraded images.
            names: what the noise of each is drawn from, besides the seed.
            mask: ``[B, 1, H, W]``, 1 where the images are intact and 0 in holes.
            features: of each image those that are known, ``[1, D]``; the restorer makes the others.
            callback: called as ``(step, nfe, x0)`` after each network call, from step 1 to nfe,
                with what is believed of the clean images then, ``[B, 3, H, W]``, not clamped.
            on_task: called with the task of each image and its probability, which is 1 of a task
                that was named, if the model knows several.

        Raises:
            MemoryError: not even the smallest tiles fit.
            FeatureError: the model takes features that nothing gives.
        """
        if self.device.type == "cpu" and len(lq) > 1:
            masks = [None] * len(lq) if mask is None else list(mask[:, None])
            each = zip(lq[:, None], names, masks, features or [{}] * len(lq), strict=True)
            alone = [
                self.restore(x, [name], mask=m, features=[f], callback=callback, on_task=on_task)
                for x, name, m, f in each
            ]
            return torch.cat(alone)
        mu = uploaded(lq.float(), self.device)
        context = self.context(mu, mask=mask, features=features, on_task=on_task)
        noise, nfe = named_noise(self.seed, names, device=self.device), self.sampler.nfe

        def on_step(step: int, t: float, x: Tensor, prediction: Prediction) -> None:
            if callback is not None:
                callback(step + 1, nfe, prediction.x0)

        def run(model: DenoiserLike) -> Tensor:
            if callback is None and not isinstance(model, TiledDenoiser):
                return sample(self.graphs, self.sampler, self.denoiser, mu, noise, context)
            return self.sampler(model, mu, noise=noise, callback=on_step)

        restored = self.tiler.run(run, *lq.shape[-2:], context=context)
        return restored.float().clamp(0.0, 1.0).to(lq.device)

    def draw(
        self,
        lq: Tensor,
        names: Sequence[str],
        *,
        samples: int,
        mask: Tensor | None = None,
        features: Sequence[Context] | None = None,
        callback: Preview | None = None,
        on_task: OnTask | None = None,
    ) -> Ensemble:
        """Mean and deviation of several restorations; arguments as of :meth:`restore`.

        The first sample is that of :meth:`restore`; ``on_task`` is called once. Several samples of
        a sampler without noise are a ValueError.
        """
        check_spread(self.sampler, self.denoiser.process, samples)
        # Once, however many samples: another network looks at the photo for them.
        mu = uploaded(lq.float(), self.device)
        seen = gather_features(self.denoiser.network, mu, features, self.features)
        known = [{key: value[i : i + 1] for key, value in seen.items()} for i in range(len(lq))]

        def one(index: int) -> Tensor:
            return self.restore(
                lq,
                [numbered(name, index) for name in names],
                mask=mask,
                features=known,
                callback=callback,
                on_task=None if index else on_task,
            )

        return draw(one, samples)

    def compare(self, image: Image.Image, *, name: str = "") -> Comparison:
        """Restore a Pillow image; a notebook shows the result beside it."""
        return Comparison(image, self(image, name=name))

    def context(
        self,
        mu: Tensor,
        *,
        mask: Tensor | None = None,
        features: Sequence[Context] | None = None,
        on_task: OnTask | None = None,
    ) -> Context | None:
        """The network's conditions for ``mu`` ``[B, 3, H, W]``; arguments as of :meth:`restore`."""
        network = self.denoiser.network
        context = make_context(
            network,
            mu,
            task=None if self.task == "auto" else self.task,
            mask=None if mask is None else mask.to(mu),
            features=gather_features(network, mu, features, self.features),
        )
        if context and "task" in context and on_task is not None:
            tasks, (sure, best) = known_tasks(network), context["task"].max(dim=1)
            on_task([(tasks[i], p) for i, p in zip(best.tolist(), sure.tolist(), strict=True)])
        return context

    def __call__(
        self, image: Picture, *, name: str = "", callback: Preview | None = None
    ) -> Picture:
        """Restore one photo, a Pillow image (turned upright), an array or a tensor.

        Arrays are ``[H, W]`` or ``[H, W, C]`` of uint8, uint16 or floats in [0, 1], tensors floats
        ``[C, H, W]`` or ``[B, C, H, W]`` in [0, 1], C in 1 to 4: grey, grey and alpha, RGB, RGBA.
        Other kinds, shapes and floats beyond (but for 1 %, which is cut) are a TypeError or a
        ValueError. The noise is drawn from ``name``, besides the seed; ``callback`` is that of
        :meth:`restore`.

        Returns:
            The same kind, shape and number type; grey stays grey and alpha passes through. Pillow's
            are L, LA, RGB, RGBA, F or I;16, with the original's resolution and colour profile; of
            print colours, which become sRGB, without it.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            if not len(image):
                raise ValueError(f"expected [B, C, H, W] and some pixels, got {tuple(image.shape)}")
            names = [f"{name}/{i}" if i else name for i in range(len(image))]
            alone = zip(image, names, strict=True)
            return torch.stack([self(part, name=n, callback=callback) for part, n in alone])
        pixels, as_given = channels_of(image)
        return as_given(self.channels(pixels, name=name, callback=callback))

    def channels(self, image: Tensor, *, name: str = "", callback: Preview | None = None) -> Tensor:
        """Restore ``[C, H, W]`` in [0, 1] with C in 1 to 4; the same shape comes back."""
        restored = self.restore(to_rgb(image)[None], [name], callback=callback)[0]
        return like_original(restored, image)
