"""Lightning callbacks: what is logged, averaged and measured while a model trains."""

from callbacks.ema import EMA
from callbacks.finite_loss import FiniteLoss
from callbacks.sampling_validation import SamplingValidation
from callbacks.save_last import SaveLast
from callbacks.teacher import Teacher
from callbacks.throughput import Throughput

__all__ = ["EMA", "FiniteLoss", "SamplingValidation", "SaveLast", "Teacher", "Throughput"]
