"""Go on with an optimizer and its schedule under the options of this run.

What was learnt comes from the checkpoint: momenta, averages, how many steps were made. Rates,
decays and the shape of the schedule are the configuration's, which new checkpoints describe: the
schedule is replayed to where it stands, so that the rate is that of a run which had these options
from its first step.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_only
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mrdiff.checkpoints.description import CheckpointError

# Of the machine rather than of the run, or told by the rate that the schedule starts from.
_UNSAID = {"params", "lr", "foreach", "fused", "capturable", "differentiable"}
# Turned on, they need averages that the checkpoint does not have.
_WITH_STATE = ("amsgrad", "centered")

Pairs = Sequence[tuple[dict[str, Any], Mapping[str, Any]]]


def _pairs(optimizer: Optimizer, state: Mapping[str, Any]) -> Pairs:
    """Each group of the optimizer with the saved one.

    Raises:
        CheckpointError: they are of other weights, or an option needs what was not saved.
    """
    ours, theirs = optimizer.param_groups, state["param_groups"]
    sizes, saved_sizes = ([len(group["params"]) for group in groups] for groups in (ours, theirs))
    if sizes != saved_sizes:
        raise CheckpointError(
            f"the optimizer of the checkpoint has groups of {saved_sizes} weights, that of this "
            f"run of {sizes}: set the same model.optimizer and model.loss, or begin a new run with "
            "--init_from"
        )
    pairs = list(zip(ours, theirs, strict=True))
    for key in _WITH_STATE:
        if any(group.get(key) and not saved.get(key) for group, saved in pairs):
            raise CheckpointError(
                f"model.optimizer: a run that began without {key} cannot go on with it: leave it "
                "out, or begin a new run with --init_from"
            )
    return pairs


def _replay(scheduler: Any, saved: Mapping[str, Any], steps: int) -> None:
    """Bring a scheduler that has just been made to where the saved one stood."""
    if not isinstance(scheduler, ReduceLROnPlateau):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step of the optimizer came before
            for _ in range(saved.get("last_epoch", steps)):
                scheduler.step()
    elif saved.get("mode") == scheduler.mode:
        for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(scheduler, key, saved[key])


def _changes(pairs: Pairs) -> list[str]:
    """Which options are others than in the checkpoint, and the rate if it jumps."""
    lines = sorted(
        {
            f"{'lr' if key == 'initial_lr' else key} {ours[key]} (was {saved[key]})"
            for ours, saved in pairs
            for key in (ours.keys() & saved.keys()) - _UNSAID
            if ours[key] != saved[key]
        }
    )
    now, was = (max(float(pair[i]["lr"]) for pair in pairs) for i in (0, 1))
    if not math.isclose(now, was, rel_tol=1e-6):
        lines.append(f"the learning rate goes on at {now:.3g} (was {was:.3g})")
    return lines


class Resumption:
    """What a checkpoint says of the schedule, taken out of it: Lightning would load all of it.

    Args:
        checkpoint: with everything that training needs.
        ours, theirs: ``model.lr_scheduler`` of the run's configuration and of the checkpoint's.

    Raises:
        CheckpointError: it holds weights alone.
    """

    def __init__(self, checkpoint: dict[str, Any], *, ours: Any, theirs: Any) -> None:
        if not {"lr_schedulers", "optimizer_states", "callbacks"} <= checkpoint.keys():
            raise CheckpointError(
                "the checkpoint holds weights alone (save_weights_only): begin a new run with "
                "--init_from"
            )
        self._schedule: Mapping[str, Any] = next(iter(checkpoint["lr_schedulers"]), {})
        self._steps: int = checkpoint["global_step"]
        self._changed = [] if None in (ours, theirs) or ours == theirs else ["model.lr_scheduler"]
        checkpoint["lr_schedulers"] = []

    def options(
        self, scheduler: Any, optimizer: Optimizer, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What to load into the optimizer: the saved ``state`` under the options that it has here.

        The scheduler, which has just been made, is brought forward. One line says what changed.
        """
        pairs = _pairs(optimizer, state)
        _replay(scheduler, self._schedule, self._steps)
        if isinstance(scheduler, ReduceLROnPlateau):
            for ours, saved in pairs:  # what the validations have made of the first rate
                ours["lr"] = ours["initial_lr"] * (saved["lr"] / (saved["initial_lr"] or 1))
        changed = [*self._changed, *_changes(pairs)]
        if changed:
            _say(f"note: resumed under other options than before: {'; '.join(changed)}")
        return {
            **state,
            "param_groups": [{**ours, "params": saved["params"]} for ours, saved in pairs],
        }


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr)


def keep_patience(callbacks: Sequence[EarlyStopping], states: Mapping[str, Any]) -> None:
    """Let the patience be what the run asks for: Lightning takes it from the checkpoint."""
    for callback in callbacks:
        if callback.state_key in states:
            states[callback.state_key]["patience"] = callback.patience
