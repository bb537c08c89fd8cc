"""What a trainer is doing."""

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn


def is_fitting(trainer: Trainer) -> bool:
    """Whether it trains, be it at a validation on the way."""
    return trainer.state.fn == TrainerFn.FITTING


def stage_name(trainer: Trainer) -> str:
    """What log keys of an evaluation begin with."""
    return "test" if trainer.testing else "val"
