"""The run that makes Abacus: its length, its sizes, its learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langnorm.abacus.fast_forward import Precision

_WARM_UP_STEPS = 40


@dataclass(frozen=True, slots=True)
class Run:
    """What decides the weights, and how they are computed. The defaults made the shipped ones, but for a last polish.

    Attributes:
        num_tokens: Tokens to train on, padding included, over all processes.
        tokens_per_step: Tokens of one optimizer step, over all processes.
        matrix_lr: Muon's learning rate, for the matrices.
        vector_lr: AdamW's learning rate, for the embedding and the norms.
        decay: Share of the run at its end over which both learning rates fall linearly to zero.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the MLP.
        num_layers: Number of decoder layers.
        seed: Of the weights and of the data.
        precision: Of the matrix products, float32 or bfloat16.
        device: Where the weights are, cuda or cpu.
        num_processes: Single-threaded processes that share each step on the CPU; a GPU takes one.
        num_workers: Processes that draw a GPU's batches; on the CPU each process draws its own.
        pad_multiple: Rows are padded to a multiple of so many tokens. A coarse one saves a GPU recordings of the step.
        compiles: Whether the layers are compiled on the CPU, which takes a C++ compiler and half a minute.
    """

    num_tokens: int = 330_000_000
    tokens_per_step: int = 12_288
    matrix_lr: float = 0.02
    vector_lr: float = 3e-3
    decay: float = 0.6
    hidden_size: int = 128
    intermediate_size: int = 320
    num_layers: int = 12
    seed: int = 0
    precision: Precision = "bfloat16"
    device: str = "cuda"
    num_processes: int = 1
    num_workers: int = 10
    pad_multiple: int = 64
    compiles: bool = True

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return self.num_tokens // self.tokens_per_step

    def padded(self, length: int) -> int:
        """Return the length to which a row of `length` tokens is padded at least."""
        return -(-length // self.pad_multiple) * self.pad_multiple

    def lr_scale(self, step: int) -> float:
        """Return the factor on both learning rates at `step`: a short rise, a plateau, a fall to zero."""
        rise = (step + 1) / _WARM_UP_STEPS
        fall = (self.num_steps - step) / max(1, round(self.decay * self.num_steps))
        return min(1.0, rise, fall)
