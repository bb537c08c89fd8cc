"""Each photo restored by every run and measured, what is done kept at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mrdiff.cli.common.crops import read_crop
from mrdiff.cli.common.pages import thumbnail
from mrdiff.cli.common.progress import counting_calls
from mrdiff.cli.common.trials import restore_one
from mrdiff.cli.evaluate.cases import Case
from mrdiff.cli.evaluate.parts import INPUT, TRUTH, Part, digest_of, read_part, write_part
from mrdiff.cli.evaluate.runs import Run
from mrdiff.metrics import Features, Meter
from mrdiff.photo import PhotoError, composite
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.files import replacing
from mrdiff.system.memory import is_out_of_memory

__all__ = ["Work"]


@dataclass
class Work:
    """What is done with each photo: restored in whole, or its middle of ``crop`` pixels.

    Called with photos it keeps what it measures of them, and returns the reasons of those that
    failed, by name.
    """

    restorer: Restorer
    runs: Sequence[Run]
    meter: Meter
    features: Features | None
    crop: int | None
    sizes: set[tuple[int, ...]] = field(default_factory=set)  # that the network has seen

    def is_done(self, case: Case) -> bool:
        """Whether all of it is kept; not of a photo that cannot be read."""
        try:
            return not self._missing(self._known(case))
        except PhotoError:
            return False

    def __call__(self, cases: list[Case]) -> dict[str, str]:
        device, failures = self.restorer.device, dict[str, str]()
        self.meter.to(device)
        if self.features is not None:
            self.features.to(device)
        with counting_calls("evaluating", len(cases) * sum(run.nfe for run in self.runs)) as step:
            for case in cases:
                try:
                    self._evaluate(case, step)
                except PhotoError as error:
                    failures[case.name] = str(error)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    failures[case.name] = "out of memory, try a smaller --crop"
        return failures

    def _known(self, case: Case) -> Part:
        files, part = digest_of(case.photo), read_part(case.kept)
        return part if part is not None and part.files == files else Part(files)

    def _missing(self, part: Part) -> list[Run]:
        return [run for run in self.runs if run.key not in part.scores]

    def _evaluate(self, case: Case, step: Callable[..., None]) -> None:
        part, crop = self._known(case), read_crop(case.photo, self.crop)
        assert crop.gt is not None
        if INPUT not in part.scores:
            self._measure(case, part, INPUT, composite(crop.lq), crop.gt)
            self._look(case, part, TRUTH, crop.gt)
        missing = self._missing(part)
        step(sum(run.nfe for run in self.runs) - sum(run.nfe for run in missing))
        for run in missing:
            self.restorer.task = case.told
            self._warm_up(crop.lq)
            self.restorer.sampler = run.sampler
            image, seconds, part.judged = restore_one(
                self.restorer, crop.lq, case.photo.name, mask=crop.mask, on_call=step
            )
            part.seconds[run.key] = round(seconds, 6)
            self._measure(case, part, run.key, image, crop.gt)
            write_part(case.kept, part)

    def _warm_up(self, lq: Tensor) -> None:
        """The first call at each size is slow: it is not timed."""
        if lq.shape in self.sizes:
            return
        self.sizes.add(lq.shape)
        cheapest = min((run.sampler for run in self.runs), key=lambda sampler: sampler.nfe)
        single = make_sampler("fidelity", nfe=1)
        suits = single.suits(self.restorer.denoiser.process)
        self.restorer.sampler = single if suits else cheapest
        restore_one(self.restorer, lq, "", on_call=lambda: None)

    def _measure(self, case: Case, part: Part, key: str, image: Tensor, truth: Tensor) -> None:
        device = self.restorer.device
        scores = self.meter(image[None].to(device), truth[None].to(device))
        unknown = dict.fromkeys(self.meter.names, math.nan)  # of a photo too small for them
        # Rounded here, so that sums in another order give the same table.
        known = {name: round(float(value[0]), 6) for name, value in scores.items()}
        part.scores[key] = {**unknown, **known}
        self._look(case, part, key, image)

    def _look(self, case: Case, part: Part, key: str, image: Tensor) -> None:
        """Keep the features of an image ``[3, H, W]``, and a small picture of it for the page."""
        features = self.features
        if features is not None and min(image.shape[-2:]) >= features.min_size:
            found = features(image[None].to(self.restorer.device))
            part.features[key] = found[0].float().cpu().contiguous()
        if case.pictures is not None:
            with replacing(case.pictures / f"{key}.jpg") as temporary:
                temporary.write_bytes(thumbnail(image))
