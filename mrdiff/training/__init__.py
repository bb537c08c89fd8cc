"""Training: objective, losses, optimizers, freezing, transfer, LoRA, the LightningModule."""

from mrdiff.training.consistency import Consistency
from mrdiff.training.lora import LoRA
from mrdiff.training.losses import L1, L2, Charbonnier, Perceptual
from mrdiff.training.objective import Objective, OptimalStep, ScaledTarget
from mrdiff.training.optim import Lion, Muon
from mrdiff.training.warmup import WarmupCosine

__all__ = [
    "L1",
    "L2",
    "Charbonnier",
    "Consistency",
    "Lion",
    "LoRA",
    "Muon",
    "Objective",
    "OptimalStep",
    "Perceptual",
    "ScaledTarget",
    "WarmupCosine",
]
