"""Whether and how a training step is compiled, and what happens where that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch._functorch.config
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

from mrdiff.training.budget import find_budget
from mrdiff.training.checks import TrainingError

Compile = Literal["auto"] | bool
Losses = tuple[Tensor, Tensor | None]

# Steps, or seconds: in fewer, the minute that compiling takes is not won back.
_WORTH, _LASTING = 1000, 240


def is_worth_it(wanted: Compile, trainer: Trainer) -> bool:
    """``auto`` compiles on CUDA, for runs that are long enough or have no known end."""
    if wanted != "auto":
        return wanted
    if trainer.strategy.root_device.type != "cuda":
        return False
    budget = find_budget(trainer)
    if budget is not None:
        return budget.seconds - budget.time_elapsed() >= _LASTING
    return trainer.estimated_stepping_batches - trainer.global_step >= _WORTH


def _fits_graphs(trainer: Trainer) -> bool:
    """Whether CUDA graphs may own the gradients: a replay overwrites those of the one before.

    They must not be summed over batches then; nor has it been tried with several processes.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    scheduled = any(isinstance(each, GradientAccumulationScheduler) for each in callbacks)
    alone = trainer.world_size == 1 and trainer.accumulate_grad_batches == 1 and not scheduled
    return trainer.strategy.root_device.type == "cuda" and alone


class CompiledStep:
    """The losses of a step by a program for its shapes, made at the first call.

    Args:
        function: pure.
        required: whether a failure to compile ends the run, by TrainingError. If not, one line
            tells of it, and ``function`` is called as it is from then on.
    """

    def __init__(
        self, function: Callable[..., Losses], trainer: Trainer, *, required: bool
    ) -> None:
        self._function, self._required = function, required
        self._graphs, self._say = _fits_graphs(trainer), trainer.is_global_zero
        torch.compiler.reset()  # programs of an earlier run: torch keeps eight of a function
        # The backward pass is compiled with the rest, so that what fails there is caught here, too.
        torch._functorch.config.force_non_lazy_backward_lowering = True
        mode = "reduce-overhead" if self._graphs else None
        # A function, not a module in place: checkpoints keep their keys, and networks stay plain.
        self._run = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)

    def __call__(self, *arguments: Any) -> Losses:
        if self._run is self._function:
            return self._function(*arguments)
        try:
            return self._compiled(*arguments)
        except Exception as error:  # of torch's compiler, C++, Triton; or of the user's own code
            line = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
            if self._required:
                self._function(*arguments)  # raises what is the user's own
                message = "model.compile: torch cannot compile this training step (auto goes on "
                raise TrainingError(f"{message}without): {line}") from error
        found = self._function(*arguments)
        self._run = self._function
        if self._say:
            print(f"note: training goes on uncompiled: {line}", file=sys.stderr, flush=True)
        return found

    def _compiled(self, *arguments: Any) -> Losses:
        if not self._graphs:
            return self._run(*arguments)
        torch.compiler.cudagraph_mark_step_begin()
        loss, task_loss = self._run(*arguments)
        # The next replay writes where these are, which may still be logged then.
        return loss.clone(), None if task_loss is None else task_loss.clone()
