"""Throughput: the numbers are right and logged when they should be."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

import callbacks.throughput
from callbacks import Throughput
from tests.tiny_training import TinyImages, loader, tiny_module, tiny_trainer


class SlowImages(TinyImages):
    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(0.02)
        return super().__getitem__(index)


class Clock:
    """Time that passes when asked to."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Log:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))


def test_numbers_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(), Log()
    monkeypatch.setattr(callbacks.throughput, "time", clock)
    connector = SimpleNamespace(should_update_logs=False)
    trainer: Any = SimpleNamespace(
        _logger_connector=connector,
        world_size=2,
        loggers=[log],
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=1)),
    )
    module: Any = None
    batch = {"gt": torch.zeros(5, 3, 2, 2)}
    callback = Throughput()
    callback.on_train_start(trainer, module)
    clock.now += 50.0  # before the epoch: not counted
    callback.on_train_epoch_start(trainer, module)
    for step in range(2):
        clock.now += 1.0  # waiting for the batch
        callback.on_train_batch_start(trainer, module, batch, step)
        clock.now += 3.0  # the step
        connector.should_update_logs = step == 1
        callback.on_train_batch_end(trainer, module, None, batch, step)
        clock.now += 50.0  # validation: not counted
        callback.on_validation_end(trainer, module)
    # Two processes, 2 steps of 5 images each in 2 * (1 + 3) seconds.
    assert log.rows == [(1, {"train/images_per_s": 20 / 8, "train/data_wait": 2 / 8})]


def logged(folder: Path, data: DataLoader[dict[str, Any]]) -> list[dict[str, str]]:
    logger = CSVLogger(folder, name="", version="csv", flush_logs_every_n_steps=1)
    trainer = tiny_trainer(folder, Throughput(), logger=logger, log_every_n_steps=2)
    trainer.fit(tiny_module(), data, loader())
    rows = list(csv.DictReader((folder / "csv" / "metrics.csv").open()))
    return [row for row in rows if row["train/images_per_s"]]


def test_waiting_for_slow_data_shows(tmp_path: Path) -> None:
    slow = logged(tmp_path / "slow", DataLoader(SlowImages(16), batch_size=4))
    fast = logged(tmp_path / "fast", loader(count=16))
    for rows in (slow, fast):
        assert [int(row["step"]) for row in rows] == [1, 3, 5, 7]
        assert all(0 <= float(row["train/data_wait"]) <= 1 for row in rows)
    for a, b in list(zip(slow, fast, strict=True))[1:]:
        assert float(a["train/data_wait"]) > float(b["train/data_wait"])
        assert float(a["train/images_per_s"]) <= 50  # 20 ms an image


def test_without_a_logger(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, Throughput()).fit(tiny_module(), loader())


def test_unknown_batch_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="clean"):
        tiny_trainer(tmp_path, Throughput(batch_key="clean")).fit(tiny_module(), loader())
