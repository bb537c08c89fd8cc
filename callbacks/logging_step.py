"""When Lightning logs."""

from lightning.pytorch import Trainer


def is_logging_step(trainer: Trainer) -> bool:
    """Whether the step that ends is one of every ``trainer.log_every_n_steps``."""
    # Lightning has no public question for it; its own monitors ask this.
    return trainer._logger_connector.should_update_logs
