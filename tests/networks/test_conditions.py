"""The context of a network: its task, by name or by its own judgement, and the mask of holes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mrdiff import MRDiffusion, MRProcess, Restorer, load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.wrappers import BoundDenoiser
from mrdiff.networks import UNet
from mrdiff.networks.conditions import (
    TaskError,
    check_degradation,
    classify,
    judge,
    make_context,
    one_hot,
    training_context,
)
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from tests.tiny_training import tiny_trainer

TASKS = ("dark", "striped")


def network(*, tasks: tuple[str, ...] = TASKS, mask: bool = True) -> UNet:
    """A network with no zero layer, as if it had been trained."""
    made = UNet(widths=(8, 12), encoder=(1,), decoder=(1,), time_width=16, tasks=tasks, mask=mask)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return made.eval()


def denoiser_of(made: nn.Module) -> Denoiser:
    return Denoiser(made, MRProcess(), Parameterization.named("data"))


def images(seed: int = 0, count: int = 2, size: int = 24) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_task_and_mask_reach_the_output_and_known_everywhere_is_the_default() -> None:
    made, x, mu, t = network(), images(1), images(2), torch.full((2,), 0.5)
    context = make_context(made, mu, task="dark")
    assert context is not None
    plain = made(x, mu, t, context)
    whole = made(x, mu, t, {**context, "mask": torch.ones(2, 1, 24, 24)})
    holed = made(x, mu, t, {**context, "mask": torch.zeros(2, 1, 24, 24)})
    other = made(x, mu, t, make_context(made, mu, task="striped"))
    assert torch.equal(plain, whole)
    assert not torch.allclose(plain, holed, atol=1e-3)
    assert not torch.allclose(plain, other, atol=1e-3)


def test_without_a_task_the_network_judges_each_image_by_itself() -> None:
    made, mu = network(), images(2)
    context = make_context(made, mu)
    assert context is not None
    assert torch.allclose(context["task"].sum(dim=1), torch.ones(2))
    assert torch.allclose(context["task"], made.classify(mu).softmax(dim=1))
    assert torch.allclose(context["task"][1:], make_context(made, mu[1:])["task"], atol=1e-6)  # type: ignore[index]
    x, t = images(1), torch.full((2,), 0.5)
    assert torch.equal(made(x, mu, t), made(x, mu, t, context))


def test_a_network_of_one_task_takes_nothing_and_refuses_what_it_does_not_take() -> None:
    made = network(tasks=(), mask=False)
    mu = images()
    assert make_context(made, mu, mask=torch.ones(2, 1, 24, 24)) is None
    with pytest.raises(ValueError, match="no task dark: this model was trained for one task"):
        make_context(made, mu, task="dark")
    with pytest.raises(ValueError, match="takes no task"):
        made(mu, mu, torch.ones(2), {"task": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"no task rainy: this model knows dark, striped"):
        make_context(network(), mu, task="rainy")
    with pytest.raises(ValueError, match="a name of its own"):
        UNet(tasks=("rain", "rain"))


def test_what_is_no_task_is_refused() -> None:
    assert torch.equal(one_hot(torch.tensor([1, 0]), 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    for wrong in (2, -1):
        with pytest.raises(TaskError, match="none of the network's 2"):
            check_degradation(torch.tensor([0, wrong]), network())
    check_degradation(torch.tensor([0, 1]), network())
    check_degradation(torch.tensor([7]), network(tasks=()))


@pytest.mark.parametrize("judged", [True, False])
def test_training_gives_the_truth_or_the_judgement(judged: bool) -> None:
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]], requires_grad=True)
    batch = {"degradation": torch.tensor([1, 1]), "mask": torch.ones(2, 1, 8, 8)}
    which = torch.full((2, 1), judged)
    context = training_context(network(), batch, logits, judged=which)
    assert context is not None
    wanted = logits.softmax(1) if judged else one_hot(batch["degradation"], 2)
    assert torch.equal(context["task"], wanted)
    assert not context["task"].requires_grad
    assert context["mask"] is batch["mask"]


def test_tiles_see_their_part_of_the_mask_and_the_task_of_the_whole() -> None:
    """A network that returns its condition: what the tiles get is put together again."""

    class Echo(nn.Module):
        def forward(
            self, x: Tensor, mu: Tensor, t: Tensor, context: dict[str, Tensor] | None = None
        ) -> Tensor:
            assert context is not None
            return context["mask"] * context["task"][:, :1, None, None] + 0 * x

    mu = torch.zeros(1, 3, 80, 96)
    mask = (torch.rand(1, 1, 80, 96, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    context = {"mask": mask, "task": torch.tensor([[0.25, 0.75]])}
    denoiser = denoiser_of(Echo())
    tiled = TiledDenoiser(denoiser, 48, overlap=16, context=context)(mu, torch.tensor(0.5), mu)
    whole = BoundDenoiser(denoiser, context)(mu, torch.tensor(0.5), mu)
    assert torch.allclose(tiled.x0, whole.x0, atol=1e-6)
    assert float(whole.x0.max()) > 0


def test_the_restorer_gives_the_task_and_reports_what_was_judged() -> None:
    denoiser, lq = denoiser_of(network()), images(3)
    judged: list[tuple[str, float]] = []
    auto = Restorer(denoiser, nfe=2).restore(lq, ["a", "b"], on_task=judged.extend)
    assert len(judged) == 2
    assert all(task in TASKS and 0.5 <= sure <= 1 for task, sure in judged)  # of two
    results = {task: Restorer(denoiser, nfe=2, task=task).restore(lq, ["a", "b"]) for task in TASKS}
    assert not torch.allclose(results["dark"], results["striped"], atol=1e-3)
    holes = torch.zeros(2, 1, 24, 24)
    masked = Restorer(denoiser, nfe=2).restore(lq, ["a", "b"], mask=holes)
    assert not torch.allclose(auto, masked, atol=1e-3)
    with pytest.raises(ValueError, match="no task snowy"):
        Restorer(denoiser, task="snowy")


class TwoTasks(Dataset[dict[str, Any]]):
    """Half of the pictures are darkened, the others striped."""

    def __init__(self, *, tasks: int = 2) -> None:
        self.tasks = tasks

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        gt = images(index, 1, 16)[0] * 0.2 + 0.5
        task = index % self.tasks
        lq = gt.clone()
        if task:
            lq[:, :, ::4] = 1.0
        else:
            lq *= 0.5
        return {"lq": lq, "gt": gt, "name": f"{index}", "degradation": task}


def universal(**options: Any) -> MRDiffusion:
    torch.manual_seed(0)
    made = UNet(widths=(8, 12), encoder=(1,), decoder=(1,), time_width=16, tasks=TASKS)
    return MRDiffusion(
        made, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-3), **options
    )


def test_the_classifier_is_trained_along_and_stored_in_the_checkpoint(tmp_path: Path) -> None:
    module = universal()
    trainer = tiny_trainer(tmp_path, max_epochs=8, limit_val_batches=1.0)
    loader = DataLoader(TwoTasks(), batch_size=8)
    trainer.fit(module, loader, loader)
    assert float(trainer.callback_metrics["val/task_accuracy"]) == 1.0
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    loaded = load_model(tmp_path / "m.ckpt", "cpu")
    lq = torch.stack([TwoTasks()[i]["lq"] for i in range(4)])
    judged: list[tuple[str, float]] = []
    Restorer(loaded, nfe=1).restore(lq, list("abcd"), on_task=judged.extend)
    assert [task for task, _ in judged] == ["dark", "striped", "dark", "striped"]


def test_a_degradation_beyond_the_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the network's 2"):
        tiny_trainer(tmp_path).fit(universal(), DataLoader(TwoTasks(tasks=3), batch_size=8))


def test_data_without_named_tasks_is_judged_and_teaches_the_classifier_nothing(
    tmp_path: Path,
) -> None:
    class Unnamed(TwoTasks):
        def __getitem__(self, index: int) -> dict[str, Any]:
            sample = super().__getitem__(index)
            del sample["degradation"]
            return sample

    class Data(LightningDataModule):
        tasks = ()

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Unnamed(), batch_size=8)

    module = universal()
    before = {k: v.clone() for k, v in module.network.named_parameters()}
    tiny_trainer(tmp_path, max_epochs=1).fit(module, datamodule=Data())
    for name, value in module.network.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith("classifier"), name
        assert value.requires_grad != name.startswith("classifier")  # or processes would not agree


@pytest.mark.parametrize("size", [40, 96, 250])
def test_a_large_image_is_judged_by_windows(size: int) -> None:
    made, mu = network(), images(4, 2, size)
    judged = judge(made, mu)
    assert torch.allclose(judged.sum(dim=1), torch.ones(2), atol=1e-5)
    if size <= 96:
        assert torch.allclose(judged, classify(made, mu).softmax(dim=1), atol=1e-6)
    else:
        starts = (0, 77, 154)
        windows = [mu[..., y : y + 96, x : x + 96] for y in starts for x in starts]
        mean = torch.stack([classify(made, w).softmax(dim=1) for w in windows]).mean(dim=0)
        assert torch.allclose(judged, mean, atol=1e-6)


def test_tasks_of_data_and_network_are_compared_in_every_stage(tmp_path: Path) -> None:
    class Named(LightningDataModule):
        tasks = ("striped", "dark")

        def val_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TwoTasks(), batch_size=8)

        train_dataloader = val_dataloader

    for run in ("fit", "validate"):
        with pytest.raises(TaskError, match="is dark, striped, but the data has striped, dark"):
            getattr(tiny_trainer(tmp_path), run)(universal(), datamodule=Named())
