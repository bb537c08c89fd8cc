"""Which images of a validation are restored."""

import math
from collections import Counter
from typing import Any

from lightning.pytorch import Trainer


class Choice:
    """The first images, over all processes, or the first of each task; in a test all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.seen: Counter[int] = Counter()  # by task, of this process
        self._processes, self._rank = 1, 0

    def start(self, trainer: Trainer) -> None:
        """Begin afresh with the trainer's loaders, the first of which counts."""
        self.seen.clear()
        loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        first = loaders[0] if isinstance(loaders, list) and loaders else loaders
        sampler = getattr(first, "sampler", None)
        self._processes = getattr(sampler, "num_replicas", 1)
        self._rank = getattr(sampler, "rank", 0)

    def of(self, trainer: Trainer, batch: Any) -> list[int]:
        """Which images of a batch are among them."""
        tasks = batch["degradation"].tolist() if "degradation" in batch else [0] * len(batch["lq"])
        chosen = []
        for i, task in enumerate(tasks):
            if self.seen[task] < self._share(trainer, task):
                self.seen[task] += 1
                chosen.append(i)
        return chosen

    def _share(self, trainer: Trainer, task: int) -> float:
        """How many images of a task this process restores; the tasks come in turns."""
        if trainer.testing:
            return math.inf
        turns = max(1, len(getattr(getattr(trainer, "datamodule", None), "tasks", ())))
        every = range(self._processes)
        ours = [i for i in every if (i * turns + task) % self._processes == self._rank]
        return sum(len(range(i, self._most, self._processes)) for i in ours)
