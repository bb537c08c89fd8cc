"""The model that another is distilled from: measured once on the images of validation."""

import os
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from callbacks.results import SamplerAt
from callbacks.scoring import Scores
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler


@dataclass(frozen=True)
class Teacher:
    """A trained model, whose quality is logged beside that of the one in training.

    Args:
        checkpoint: file or exported folder; None for no teacher.
        sampler: name from ``mrdiff.system.names.SAMPLERS``.
        nfes: numbers of network calls.
    """

    checkpoint: str | None = None
    sampler: str = "perceptual"
    nfes: tuple[int, ...] = (5, 10)


class TeacherScores:
    """Scores of what a teacher restores, kept: neither it nor the images change.

    Its model is in memory for as long as there are images that it has not restored.
    """

    def __init__(self, teacher: Teacher) -> None:
        samplers = {nfe: make_sampler(teacher.sampler, nfe=nfe) for nfe in teacher.nfes}
        self._samplers = {SamplerAt("teacher", nfe): each for nfe, each in samplers.items()}
        self._checkpoint, self._allow = teacher.checkpoint, list[str]()
        self._gone = False  # since the run began, which is resumed without it
        self._model: Denoiser | None = None
        self._known: dict[Hashable, dict[SamplerAt, Scores]] = {}

    @property
    def runs(self) -> dict[SamplerAt, Sampler]:
        """Its samplers, under the name ``teacher``; none without a checkpoint."""
        return {} if self._checkpoint is None or self._gone else self._samplers

    def load(self, *, allow: Sequence[str] = ()) -> None:
        """Read the model.

        Raises:
            CheckpointError: it cannot be read, or has classes of packages not in ``allow``.
            ValueError: the sampler cannot follow its path.
        """
        self._allow = list(allow)
        if self._checkpoint is not None and self.runs:
            with torch.random.fork_rng(devices=[]):  # a new network draws its weights
                self._model = load_model(self._checkpoint, "cpu", allow=allow)
            for sampler in self.runs.values():
                sampler.check(self._model.process)

    def release(self) -> None:
        self._model = None

    def of(
        self, images: Hashable, device: torch.device, measure: Callable[[Denoiser, Sampler], Scores]
    ) -> dict[SamplerAt, Scores]:
        """The scores of images by run: ``measure`` is called for those that are new."""
        if self.runs and images not in self._known:
            if self._model is None:
                self.load(allow=self._allow)
            assert self._model is not None
            model = self._model.to(device)
            self._known[images] = {run: measure(model, each) for run, each in self.runs.items()}
        return self._known.get(images, {})

    def state_dict(self) -> dict[str, Any]:
        return {} if self._checkpoint is None else {"teacher": os.path.abspath(self._checkpoint)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the teacher of a resumed run, which needs none if that is gone."""
        known = [path for path in (self._checkpoint, state.get("teacher")) if path is not None]
        there = [path for path in known if Path(path).exists()]
        self._checkpoint, self._gone = (there or known or [None])[0], not there
        if known and self._gone:
            print(f"note: the teacher is not shown any more: no {known[0]}", file=sys.stderr)
