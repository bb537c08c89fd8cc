"""Any photo in, the same kind of photo out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser, DenoiserLike, Prediction
from mrdiff.networks.conditions import Context, check_task, known_tasks, make_context
from mrdiff.photo import like_original, to_rgb
from mrdiff.photo.comparison import Comparison
from mrdiff.photo.kinds import Photo, channels_of
from mrdiff.restoration.ensemble import Ensemble, check_spread, draw, numbered
from mrdiff.restoration.features import FeatureMaker, Known, check_features, gather_features
from mrdiff.restoration.tiles import Tiler
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.sampler import MRSampler, named_sampler
from mrdiff.solvers.timegrid import Grid
from mrdiff.tuning.kept_sampler import read_sampler, resolve_sampler

__all__ = ["Restorer"]

# Called as (step, nfe, x0) after each network call.
Preview = Callable[[int, int, Tensor], None]


class Restorer:
    """Restore photos with a trained model.

    The result depends on (model, photo, seed, name) alone: not on the batch a photo is in, nor,
    but for the network's reach, on the tiles.

    Args:
        denoiser: a trained model in evaluation mode.
        sampler: a name of :data:`mrdiff.names.SAMPLERS`, or a sampler.
        nfe: network calls a photo, if the sampler is given by name.
        seed: of the noise.
        tile: ``"auto"`` (the largest tiles that the memory holds, and whole photos up to that),
            ``"off"``, or a side in pixels >= 64.
        task: what spoilt the photos, for a model of several tasks; ``"auto"`` lets it judge.
        features: makes the features of a photo ``[1, 3, H, W]`` for a model that takes some, such
            as :class:`mrdiff.official.daclip.ImageController`.

    Raises:
        ValueError: for an unknown sampler or task, a wrong ``nfe`` or ``tile``, or features for a
            model that takes none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        sampler: str | MRSampler | BaselineSampler = "mr-ode-2",
        nfe: int = 5,
        seed: int = 0,
        tile: str | int = "auto",
        task: str = "auto",
        features: FeatureMaker | None = None,
    ) -> None:
        check_features(denoiser.network, task, features)
        check_task(task, known_tasks(denoiser.network))
        self.denoiser = denoiser
        self.sampler = named_sampler(sampler, nfe=nfe) if isinstance(sampler, str) else sampler
        self.seed = seed
        self.tiler = Tiler(denoiser, tile)
        self.task = task
        self.features = features

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
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
        allow: Sequence[str] = (),
    ) -> Restorer:
        """Load a ``.ckpt`` or an exported folder.

        Without a sampler's name the checkpoint's own is used, which ``mrdiff sweep --save`` keeps
        in it, else ``mr-ode-2``; without ``nfe`` that sampler's, else 5.

        Args:
            path: of the checkpoint.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
            sampler: a name of :data:`mrdiff.names.SAMPLERS`.
            nfe: network calls a photo.
            grid: instead of the sampler's: a name, a ``.yaml`` file, times.
            temperature: instead of the sampler's own.
            seed: as for the class.
            tile: as for the class.
            task: as for the class.
            features: as for the class.
            allow: packages besides mrdiff whose classes the checkpoint may name.

        Raises:
            CheckpointError: the file is missing or is no checkpoint of ours.
            ValueError: the sampler, its grid or another option is wrong.
        """
        denoiser = load_model(path, device=device, allow=allow)
        stored = read_sampler(path) if sampler is None else None
        chosen = resolve_sampler(stored, name=sampler, nfe=nfe, grid=grid, temperature=temperature)
        if isinstance(chosen, MRSampler):
            try:
                chosen.times(denoiser.process)  # a grid that does not fit is known at once
            except ValueError as error:
                if stored is None or grid is not None:
                    raise
                raise CheckpointError(
                    f"{path}: the sampler it keeps does not fit ({error}): name a sampler"
                ) from error
        return cls(denoiser, sampler=chosen, seed=seed, tile=tile, task=task, features=features)

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
        features: Known | None = None,
        callback: Preview | None = None,
        on_task: Callable[[list[str]], None] | None = None,
    ) -> Tensor:
        """Restore RGB images ``[B, 3, H, W]`` in [0, 1], one name each, on any device.

        On the CPU they go through the network one by one: the last bits of a convolution depend on
        how many images it is given, and those of a file must not.

        Args:
            lq: the degraded images.
            names: what the noise is drawn from, besides the seed.
            mask: ``[B, 1, H, W]``, 1 where the images were kept and 0 in holes, for a model that
                takes one.
            features: of each image those that are known, ``[1, D]``; the restorer's own
                ``features`` make the others.
            callback: called as ``(step, nfe, x0)`` after each network call, from step 1 to nfe,
                with what is believed of the clean images then, ``[B, 3, H, W]``, not clamped.
            on_task: called with the task of each image, if the model knows several.

        Returns:
            Float32 ``[B, 3, H, W]``, clamped to [0, 1], on the device of ``lq``.

        Raises:
            MemoryError: not even the smallest tiles fit.
            FeatureError: the model takes features that nothing gives.
        """
        if self.device.type == "cpu" and len(lq) > 1:
            masks = [None] * len(lq) if mask is None else list(mask[:, None])
            known = [{}] * len(lq) if features is None else features
            return torch.cat(
                [
                    self.restore(
                        x, [name], mask=m, features=[f], callback=callback, on_task=on_task
                    )
                    for x, name, m, f in zip(lq[:, None], names, masks, known, strict=True)
                ]
            )
        mu = lq.to(self.device, torch.float32)
        context = self.context(mu, mask=mask, features=features, on_task=on_task)
        nfe = self.sampler.nfe

        def told(step: int, t: float, x: Tensor, prediction: Prediction) -> None:
            if callback is not None:
                callback(step + 1, nfe, prediction.x0)

        def run(model: DenoiserLike) -> Tensor:
            noise = named_noise(self.seed, names)
            return self.sampler(model, mu, noise=noise, callback=told)

        restored = self.tiler.run(run, *lq.shape[-2:], context=context)
        return restored.float().clamp_(0.0, 1.0).to(lq.device)

    def draw(
        self,
        lq: Tensor,
        names: Sequence[str],
        *,
        samples: int,
        mask: Tensor | None = None,
        features: Known | None = None,
        callback: Preview | None = None,
        on_task: Callable[[list[str]], None] | None = None,
    ) -> Ensemble:
        """Restore images several times and tell mean and standard deviation.

        Args:
            lq: as for :meth:`restore`, and so are the others.
            names: the first sample is that of :meth:`restore`.
            samples: how many; 1 has the deviation 0.
            mask: as above.
            features: as above.
            callback: as above, for each sample anew.
            on_task: called once.

        Raises:
            ValueError: more than one sample of a sampler without noise.
        """
        check_spread(self.sampler, samples)
        # Once, however many samples: another network looks at the photo for them.
        mu = lq.to(self.device, torch.float32)
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
        features: Known | None = None,
        on_task: Callable[[list[str]], None] | None = None,
    ) -> Context | None:
        """What the network is told of ``mu`` ``[B, 3, H, W]``; arguments as of :meth:`restore`."""
        network = self.denoiser.network
        task = None if self.task == "auto" else self.task
        context = make_context(
            network,
            mu,
            task=task,
            mask=None if mask is None else mask.to(mu),
            features=gather_features(network, mu, features, self.features),
        )
        if context and "task" in context and on_task is not None:
            tasks = known_tasks(network)
            on_task([tasks[int(index)] for index in context["task"].argmax(dim=1)])
        return context

    def __call__(self, image: Photo, *, name: str = "", callback: Preview | None = None) -> Photo:
        """Restore one photo; grey stays grey and alpha passes through unchanged.

        Args:
            image: a Pillow image (turned upright), an array
                ``[H, W]`` or ``[H, W, C]`` (uint8, uint16 or float in [0, 1]), or a float tensor
                ``[C, H, W]`` or ``[B, C, H, W]`` in [0, 1]; C is 1 to 4 (grey, grey and alpha,
                RGB, RGBA).
            name: what the noise is drawn from, besides the seed.
            callback: called as ``(step, nfe, x0)``, see :meth:`restore`.

        Returns:
            The same kind, shape and number type; for Pillow one of L, LA, RGB, RGBA and I;16,
            with the colour profile and the resolution of the original.

        Raises:
            TypeError: for another kind of object or number.
            ValueError: for another shape.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            names = [f"{name}/{i}" if i else name for i in range(len(image))]
            alone = zip(image, names, strict=True)
            return torch.stack([self(part, name=n, callback=callback) for part, n in alone])
        pixels, as_given = channels_of(image)
        return as_given(self.channels(pixels, name=name, callback=callback))

    def channels(self, image: Tensor, *, name: str = "", callback: Preview | None = None) -> Tensor:
        """Restore ``[C, H, W]`` in [0, 1] with C in 1 to 4; the same shape comes back."""
        restored = self.restore(to_rgb(image)[None], [name], callback=callback)[0]
        return like_original(restored, image)
