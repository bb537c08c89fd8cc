"""A restorer as a folder or a model of the Hub, for others to load."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mrdiff.acceleration.backends import as_built
from mrdiff.acceleration.precision import PrecisionError
from mrdiff.checkpoints.adapters import check_adapters
from mrdiff.checkpoints.card import model_card
from mrdiff.checkpoints.description import FORMAT, describe_denoiser
from mrdiff.checkpoints.export import write_model
from mrdiff.checkpoints.hub import HUB, check_installed, upload
from mrdiff.checkpoints.places import BUNDLED, find_pretrained
from mrdiff.checkpoints.schema import check_description
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.tuning.checkpoint_sampler import SAMPLER_KEY, describe_sampler


class Shared:
    """What of a restorer leaves the machine, and comes back."""

    from_checkpoint: ClassVar[Callable[..., Any]]
    denoiser: Denoiser
    sampler: Sampler
    description: Mapping[str, Any] | None = None  # of the checkpoint that it is from

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = BUNDLED,
        *,
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a model of the Hub, ``ORG/NAME``, a folder, a checkpoint, or the bundled model.

        A path that is there comes first. ``revision`` is a branch, a tag or a commit of the Hub;
        ``options`` are those of :meth:`from_checkpoint`, and another one is a TypeError.

        Raises:
            PlaceError: the Hub's model cannot be had.
            CheckpointError: it is no model of ours.
            ValueError: an option is wrong.
        """
        restorer: Self = cls.from_checkpoint(find_pretrained(source, revision), **options)
        return restorer

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, license: str | None = None
    ) -> None:
        """Write a folder that :meth:`from_pretrained` reads: description, weights and card.

        The sampler is written as it is, of a checkpoint's description all else, too. Seed, tile,
        task and features are options of who loads it. ``license`` is for the card.

        Raises:
            CheckpointError: the folder exists and is not empty, or the model cannot be written.
            PrecisionError: its weights were rounded to compute faster.
            TypeError: the network or the sampler cannot be described by plain values.
        """
        self._write(Path(folder), place=os.path.basename(os.path.realpath(folder)), license=license)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool | None = None,
        commit_message: str = "A model of mrdiff",
        token: str | None = None,
        license: str | None = None,
    ) -> str:
        """Publish it on the Hugging Face Hub as ``ORG/NAME``; returns the address of its page.

        What is written is that of :meth:`save_pretrained`; a card that is there already stays.

        Args:
            repo: made if it is not there.
            private: whether a new one is; None for what its owner has set.
            commit_message: of this version.
            token: of the Hub; None for that of ``hf auth login`` or ``HF_TOKEN``.
            license: for the card, as the Hub has them, such as ``apache-2.0``.

        Raises:
            PlaceError: huggingface_hub is not installed, or the Hub refuses or cannot be reached.
            CheckpointError, PrecisionError, TypeError: as :meth:`save_pretrained`.
        """
        check_installed()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self._write(folder, place=HUB + repo, license=license)
            return upload(folder, repo, private=private, commit_message=commit_message, token=token)

    def _write(self, folder: Path, *, place: str, license: str | None) -> None:
        config, weights = self._described(), _weights(self.denoiser)
        start = None if self.denoiser.start is None else _weights(self.denoiser.start)
        card = model_card(config, weights, place=place, license=license)
        write_model(folder, weights, config, start=start, card=card)

    def _described(self) -> dict[str, Any]:
        sampler = describe_sampler(self.sampler)
        make_sampler(sampler)  # one that its options do not make is known here, not by who loads it
        if self.description is not None:
            return {**self.description, SAMPLER_KEY: sampler}
        config = {"format": FORMAT, "model": describe_denoiser(self.denoiser), SAMPLER_KEY: sampler}
        check_description(config)
        return config


def _weights(denoiser: Denoiser) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = as_built(denoiser.network).state_dict()
    narrow = {v.dtype for v in weights.values()} & {torch.bfloat16, torch.float16}
    if narrow:
        name = str(*narrow).removeprefix("torch.")
        what = f"the weights of this model were rounded to {name}"
        raise PrecisionError(f"{what}: load it with precision='fp32' to save it")
    check_adapters(weights, None)
    return weights
