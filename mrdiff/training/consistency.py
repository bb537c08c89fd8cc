"""Consistency training: one call at t = 1 shall say what many calls would arrive at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mrdiff.checkpoints.checks import homes
from mrdiff.checkpoints.description import CheckpointError, describe
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import BOUNDARY, DATA, NOISE, Parameterization
from mrdiff.diffusion.path import GaussianPath, expand_like
from mrdiff.networks.protocol import Context
from mrdiff.solvers.timegrid import start_time
from mrdiff.training.objective import Objective


class _Images(NamedTuple):
    """A batch, or a part of it."""

    mu: Tensor
    eps: Tensor
    context: Context | None

    def part(self, which: slice) -> _Images:
        context = self.context and {key: value[which] for key, value in self.context.items()}
        return _Images(self.mu[which], self.eps[which], context)


@dataclass(frozen=True)
class Consistency(Objective):
    """x0 as the network sees it at t, against x0 as it sees it at an earlier time r.

    Both states are of the same x0, mu and eps, and the earlier answer is taken for granted; at
    r = 0 it is x0 itself. So the truth is handed on from the early times to the late ones, and
    f(x_t, t) tends to where the probability flow leads from x_t (Song et al. 2023, Sec. 5; on
    bridges He et al. 2024). The flow's clock is phi = atan(sigma / (alpha data_std)) (Lu & Song
    2024): t is drawn evenly on it, and r lies one of N equal intervals before. N doubles by stages
    of the run (Geng et al. 2024).

    A model that restores in two calls noises its first answer again, and that answer is no clean
    image. In a share of the batch the state at t, in the earlier half of the clock, is made of that
    answer, and x0 is compared with: the second call learns to mend the first.

    With ``target: teacher`` the state at r is where a trained model leads from that at t, by one
    step of its probability flow: less is left to chance, and its errors are learnt with it.

    It compares images. A network that predicts ``data`` goes on as ``boundary``, without which
    nothing would hold the answers at the earliest times.

    Args:
        intervals: N in the first and in the last stage.
        rollout: the share of the batch, rounded down, whose states are made of the network's own
            first answer, in [0, 1); 0 draws samples, more restores better on average.
        target: whether the state at r is of the ``data``, or where the ``teacher`` leads.
        teacher: its checkpoint or exported folder, of the same path; read before a fit.

    Raises:
        ValueError: a number out of range; of a network that predicts ``noise``, whose x0 at t = 1
            is its error divided by alpha.
    """

    intervals: tuple[int, int] = (2, 8)
    rollout: float = 0.5
    target: Literal["data", "teacher"] = "data"
    teacher: str | None = None
    _teachers: list[Denoiser] = field(default_factory=list, init=False, repr=False, compare=False)

    images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.target not in ("data", "teacher"):
            raise ValueError(f"target must be data or teacher, got {self.target!r}")
        first, last = self.intervals
        if not 1 <= first <= last:
            raise ValueError(f"intervals rise from at least 1, got {list(self.intervals)}")
        if not 0 <= self.rollout < 1:
            raise ValueError(f"rollout must lie in [0, 1), got {self.rollout}")

    def begin(self, denoiser: Denoiser) -> None:
        if self.target == "data":
            return
        if self.teacher is None:
            raise CheckpointError("model.objective: target teacher needs its checkpoint: teacher")
        teacher = load_model(self.teacher, "cpu", allow=homes(denoiser))
        if describe(teacher.process) != describe(denoiser.process):
            raise CheckpointError(f"model.process of this run differs from that of {self.teacher}")
        ours = next(denoiser.parameters(), torch.empty(0))
        self._teachers[:] = [teacher.to(ours.device)]

    def end(self) -> None:
        self._teachers.clear()

    def parameterization(self, given: Parameterization) -> Parameterization:
        if given == NOISE:
            raise ValueError(
                "Consistency needs a network whose x0 at t = 1 can be read: data, velocity or "
                "preconditioned, not noise"
            )
        return BOUNDARY if given == DATA else given

    def stage(self, progress: float) -> int:
        """N, in equal shares of the run."""
        first, last = self.intervals
        stages = math.ceil(math.log2(last / first)) + 1
        return min(last, first * 2 ** min(stages - 1, math.floor(stages * progress)))

    def _own(self, batch: Tensor) -> int:
        """How many images of a batch, its first ones, start from the network's own answer."""
        return int(self.rollout * len(batch))

    def times(self, denoiser: Denoiser, t: Tensor, progress: float) -> Tensor:
        """t, r and the start ``[3, B]``, the drawn times being shares of the clock."""
        path, d = denoiser.process, denoiser.data_std
        start = torch.tensor(start_time(path), dtype=torch.float64)
        whole = torch.atan(torch.exp(-path.log_snr(start)) / d)
        share = torch.stack([t, t - 1 / self.stage(progress)]).double()
        share[0, : self._own(t)] *= 0.5  # no second call is later
        phi = (whole * share).clamp(min=1e-9)
        times = path.t_of_log_snr(-torch.log(d * torch.tan(phi)))
        times = torch.where(share > 0, times.clamp(max=float(start)), 0.0)
        return torch.cat([times, start.expand(1, len(t))]).to(t)

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        mu: Tensor,
        t: Tensor,
        eps: Tensor,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor]:
        path, images = denoiser.process, _Images(mu, eps, context)
        t, r, start = t
        count = self._own(x0)
        own, rest = slice(count), slice(count, None)
        x = path.marginal(x0, mu, t, eps)
        target = self._earlier(denoiser, x0[rest], images.part(rest), x[rest], t[rest], r[rest])
        if count:
            first = _first_answer(denoiser, images.part(own), start[own])
            x = torch.cat([path.marginal(first, mu[own], t[own], eps[own]), x[rest]])
            target = torch.cat([x0[own], target])
        return denoiser(x, t, mu, context).x0, target

    @torch.no_grad()
    def _earlier(
        self, denoiser: Denoiser, x0: Tensor, images: _Images, x: Tensor, t: Tensor, r: Tensor
    ) -> Tensor:
        """x0 as the network sees it at r ``[B]``, before ``x`` at t, and as it is at r = 0."""
        path, (mu, eps, context) = denoiser.process, images
        at = r.clamp(min=1e-6)
        if self._teachers:  # none beside a fit: then the data leads
            (teacher,) = self._teachers
            x0 = teacher(x, t, mu, context).x0
            before = _flow_step(path, x, x0, mu, t, at)
        else:
            before = path.marginal(x0, mu, at, eps)
        seen = denoiser(before, at, mu, context).x0
        return torch.where(expand_like(r > 0, x0), seen, x0)


def _flow_step(
    path: GaussianPath, x: Tensor, x0: Tensor, mu: Tensor, t: Tensor, r: Tensor
) -> Tensor:
    """x_r of the probability flow from x_t, x0 being the same on the way (DDIM)."""
    (alpha, sigma), (alpha_r, sigma_r) = path.shares(t), path.shares(r)
    keep = sigma_r / sigma
    keep, new = expand_like(keep, x), expand_like(alpha_r - alpha * keep, x)
    return path.centred(mu, r) + keep * (x - path.centred(mu, t)) + new * (x0 - mu)


@torch.no_grad()
def _first_answer(denoiser: Denoiser, images: _Images, start: Tensor) -> Tensor:
    """What one call makes of mu, from noise that has nothing to do with that of the state."""
    mu, eps, context = images
    height, width = mu.shape[-2:]
    eps = eps.roll((1, height // 2, width // 2), (0, -2, -1))
    x = denoiser.process.marginal(mu, mu, start, eps)  # without a residual
    return denoiser(x, start, mu, context).x0
