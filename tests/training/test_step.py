"""A training step: one graph, no waits, few ops; and where torch cannot compile it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from callbacks import EMA
from mrdiff import (
    DDBMVP,
    GOUB,
    CosineTheta,
    MRDiffusion,
    MRProcess,
    ResShift,
    TabulatedTheta,
    UniDB,
)
from mrdiff.diffusion.denoiser import NetworkError
from mrdiff.networks import IRSDEUNet, RefusionNAFNet, UNet
from mrdiff.networks.protocol import is_plain
from mrdiff.system.devices import uploaded
from mrdiff.training import compiling
from mrdiff.training.budget import Budget
from mrdiff.training.checks import TrainingError
from mrdiff.training.compiling import CompiledStep, is_worth_it
from mrdiff.training.consistency import Consistency
from mrdiff.training.losses import L1, L2, Charbonnier, Perceptual
from mrdiff.training.objective import OptimalStep, ScaledTarget
from mrdiff.training.step import Batch, training_losses
from tests.tiny_model import write_tiny_checkpoint
from tests.tiny_training import TinyNetwork, loader, tiny_trainer, weights

TABLE, COSINE = MRProcess(TabulatedTheta.irsde()), MRProcess(CosineTheta())


def unet(**options: Any) -> UNet:
    return UNet(widths=(4, 8), encoder=(1,), decoder=(1,), middle=1, time_width=8, **options)


def of_tasks() -> MRDiffusion:
    network = unet(tasks=("dark", "noisy"), mask=True)
    return MRDiffusion(network, TABLE, "velocity", loss=L2(), objective=ScaledTarget())


MODULES: dict[str, Callable[[], MRDiffusion]] = {
    "unet": lambda: MRDiffusion(unet(), COSINE, loss=Charbonnier(balance=0.5)),
    "tasks": of_tasks,
    "irsde": lambda: MRDiffusion(
        IRSDEUNet(width=4, depth=1), TABLE, "noise", loss=L1(), objective=OptimalStep(100)
    ),
    "nafnet": lambda: MRDiffusion(
        RefusionNAFNet(width=4, encoder=(1,), decoder=(1,)), TABLE, "noise", loss=L1()
    ),
    "goub": lambda: MRDiffusion(unet(), GOUB(), "velocity"),
    "unidb": lambda: MRDiffusion(unet(), UniDB(), "preconditioned"),
    "ddbm": lambda: MRDiffusion(
        unet(), DDBMVP(), "preconditioned", objective=ScaledTarget("noise"), loss=L2()
    ),
    "resshift": lambda: MRDiffusion(unet(), ResShift(), "velocity", objective=ScaledTarget("x0")),
    "consistency": lambda: MRDiffusion(
        unet(), COSINE, loss=Perceptual(weight=0.1), objective=Consistency()
    ),
}


def made(kind: str) -> MRDiffusion:
    """As if it had been trained: no weight is zero."""
    torch.manual_seed(0)
    module = MODULES[kind]()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module


def batch_of(kind: str, name: str = "one") -> Batch:
    batch = Batch(lq=torch.rand(2, 3, 16, 16), gt=torch.rand(2, 3, 16, 16), name=[name, "two"])
    if kind == "tasks":
        batch["degradation"], batch["mask"] = torch.tensor([0, 1]), torch.ones(2, 1, 16, 16)
    return batch


def gradients(
    losses: Callable[..., Any], module: MRDiffusion, batch: Batch
) -> tuple[list[Tensor], list[Tensor]]:
    """The losses, and the gradients of their sum."""
    drawn = module._drawn(batch, 0, blind=0.5, progress=0.5)
    found = [loss for loss in losses(module._parts, batch, drawn) if loss is not None]
    learning = [p for p in module.parameters() if p.requires_grad]
    return found, list(torch.autograd.grad(sum(found), learning, allow_unused=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", MODULES)
def test_a_step_is_one_graph_of_the_same_numbers(kind: str) -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    module = made(kind)
    torch.compiler.reset()  # programs of another kind: torch keeps eight of a function
    compiled = torch.compile(training_losses, fullgraph=True, dynamic=False, backend=backend)
    for name in ("one", "another"):  # nor is a name of an image compiled in
        batch = batch_of(kind, name)
        wanted, found = (gradients(f, module, batch) for f in (training_losses, compiled))
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    assert len(graphs) == 1


def test_a_step_with_a_teacher_is_one_graph_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is read before the fit: no compiler follows that."""
    file = write_tiny_checkpoint(tmp_path / "teacher.ckpt")

    def taught() -> MRDiffusion:
        objective = Consistency(target="teacher", teacher=str(file))
        module = MRDiffusion(unet(), COSINE, objective=objective)
        module.on_fit_start()
        return module

    monkeypatch.setitem(MODULES, "taught", taught)
    test_a_step_is_one_graph_of_the_same_numbers("taught")


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("process", "name", "most"),
    [(COSINE, "data", 75), (COSINE, "velocity", 110), (TABLE, "noise", 60)],
)
def test_a_step_makes_its_numbers_once_and_waits_for_nothing(
    process: MRProcess, name: Any, most: int, tmp_path: Path
) -> None:
    """Of numbers, noise and loss, beside a network of two ops; twice and thrice as many before."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Any = None) -> Tensor:
            return self.gain * x

    counts = []

    class Counted(MRDiffusion):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            with Count() as count:
                loss = super().training_step(batch, batch_idx)
            counts.append(count.ops)
            return loss

    tiny_trainer(tmp_path, max_epochs=1).fit(Counted(Scaled(), process, name), loader(size=16))
    last = counts[-1]
    # Logging by Lightning included, which makes counters of its own.
    assert last["aten::_local_scalar_dense"] == 0
    assert sum(last.values()) < most + 15, last


def test_tasks_are_no_reason_to_wait() -> None:
    module, batch = made("tasks"), batch_of("tasks")
    training_losses(module._parts, batch, module._drawn(batch, 0, blind=0.5, progress=0.0))
    with Count() as count:
        training_losses(module._parts, batch, module._drawn(batch, 1, blind=0.5, progress=0.5))
    assert count.ops["aten::_local_scalar_dense"] == count.ops["aten::lift_fresh"] == 0


def test_small_draws_are_uploaded_from_pinned_memory_without_waiting() -> None:
    calls = []

    class Values:
        device = torch.device("cpu")

        def pin_memory(self) -> Values:
            calls.append("pin")
            return self

        def to(self, device: torch.device, *, non_blocking: bool = False) -> Values:
            calls.append(f"{device} {non_blocking}")
            return self

    uploaded(Values(), torch.device("cuda"))  # type: ignore[arg-type]
    uploaded(Values(), torch.device("mps"))  # type: ignore[arg-type]
    assert calls == ["pin", "cuda True", "mps False"]


def test_a_table_made_in_inference_trains() -> None:
    process = MRProcess(TabulatedTheta((0.0, 1.0, 3.0)))
    with torch.inference_mode():
        process.alpha(torch.tensor([0.3]))
    t = torch.tensor([0.3], requires_grad=True)
    process.alpha(t).backward()
    assert float(t.grad) == pytest.approx(-2 * 0.5488116, rel=1e-5)  # type: ignore[arg-type]


def pretended(device: str, steps: float = 7000, done: int = 0, **other: Any) -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    own: dict[str, Any] = {"accumulate_grad_batches": 1, "world_size": 1, "callbacks": []}
    return SimpleNamespace(
        strategy=strategy,
        estimated_stepping_batches=steps,
        global_step=done,
        is_global_zero=True,
        **{**own, **other},
    )


def test_auto_compiles_long_runs_on_cuda() -> None:
    assert is_worth_it("auto", pretended("cuda"))
    by_clock = partial(pretended, "cuda", float("inf"))
    assert is_worth_it("auto", by_clock(callbacks=[Budget(minutes=10)]))
    assert not is_worth_it("auto", by_clock(callbacks=[Budget(minutes=2)]))
    assert is_worth_it("auto", by_clock())
    assert not is_worth_it("auto", pretended("cuda", 7000, 6500))
    assert not is_worth_it("auto", pretended("cuda", 1))  # fast_dev_run
    assert not is_worth_it("auto", pretended("cpu"))
    assert not is_worth_it("auto", pretended("mps"))
    assert is_worth_it(True, pretended("cpu", 1))
    assert not is_worth_it(False, pretended("cuda"))


@pytest.mark.parametrize(
    ("trainer", "graphs"),
    [
        (pretended("cuda"), True),
        (pretended("cpu"), False),
        (pretended("cuda", accumulate_grad_batches=2), False),
        (pretended("cuda", callbacks=[GradientAccumulationScheduler({0: 1, 4: 2})]), False),
        (pretended("cuda", world_size=2), False),
    ],
)
def test_cuda_graphs_own_the_gradients_only_where_nobody_else_does(
    trainer: Any, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, marked = [], []
    returned = torch.ones(()), None
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marked.append(1))
    monkeypatch.setattr(torch, "compile", lambda f, **options: asked.append(options) or f)
    step = CompiledStep(lambda: returned, trainer, required=True)
    assert asked[0]["mode"] == ("reduce-overhead" if graphs else None)
    step._run = lambda: returned
    loss, task_loss = step()
    assert (loss is returned[0]) != graphs  # a copy of what the next replay overwrites
    assert bool(marked) == graphs
    assert loss == 1
    assert task_loss is None


def failing(*arguments: Any, **options: Any) -> Callable[..., Any]:
    def compiled(*arguments: Any) -> Any:
        raise RuntimeError("\nno compiler here\nand more")

    return compiled


def test_what_cannot_be_compiled_trains_as_it_is_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(TrainingError, match=r"model\.compile: .*: no compiler here$"):
        tiny_trainer(tmp_path).fit(MRDiffusion(TinyNetwork(), compile=True), loader())

    class Narrow(TinyNetwork):
        def forward(self, x: Tensor, *arguments: Any) -> Tensor:
            return super().forward(x, *arguments)[..., 1:]

    with pytest.raises(NetworkError, match="must be a tensor"):  # the user's own mistake
        tiny_trainer(tmp_path).fit(MRDiffusion(Narrow(), compile=True), loader())
    capsys.readouterr()
    monkeypatch.setattr(compiling, "is_worth_it", lambda *_: True)
    monkeypatch.setattr("mrdiff.training.module.is_worth_it", lambda *_: True)
    trainer = tiny_trainer(tmp_path)
    trainer.fit(MRDiffusion(TinyNetwork()), loader())
    assert trainer.global_step == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "note: training goes on uncompiled: no compiler here"


def run(
    folder: Path,
    network: Callable[[], nn.Module],
    *,
    compile: bool,
    epochs: int = 2,
    resume: Path | None = None,
) -> MRDiffusion:
    torch.manual_seed(0)
    module = MRDiffusion(network(), TABLE, compile=compile)
    trainer = tiny_trainer(folder, EMA(decay=0.9), max_epochs=epochs)
    trainer.fit(module, loader(size=16), loader(size=24, batch_size=3), ckpt_path=resume)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module


def test_a_compiled_run_leaves_plain_networks_and_checkpoints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = run(tmp_path / "plain", TinyNetwork, compile=False)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    module = run(tmp_path / "compiled", TinyNetwork, compile=True)
    step = module._step_losses
    assert isinstance(step, CompiledStep)
    assert step._run is not training_losses  # it did not fail
    assert all(part._compiled_call_impl is None for part in module.modules())
    files = [torch.load(tmp_path / name / "last.ckpt") for name in ("plain", "compiled")]
    assert files[0]["state_dict"].keys() == files[1]["state_dict"].keys()
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(module)[name])


@pytest.mark.slow
def test_a_resumed_compiled_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """By inductor's own programs."""
    whole = run(tmp_path / "whole", unet, compile=True, epochs=4)
    run(tmp_path / "half", unet, compile=True)
    half = tmp_path / "half" / "last.ckpt"
    resumed = run(tmp_path / "rest", unet, compile=True, epochs=4, resume=half)
    eager = run(tmp_path / "eager", unet, compile=False, epochs=4)
    assert is_plain(whole.network)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name])
        torch.testing.assert_close(value, weights(eager)[name], rtol=1e-3, atol=1e-4)
