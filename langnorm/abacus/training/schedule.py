"""The run that makes Abacus: its phases, its sizes, its learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langnorm.abacus.generator import corpus
    from langnorm.abacus.training.fast_forward import Precision
    from langnorm.abacus.training.lessons import Lesson

_WARM_UP_STEPS = 40


@dataclass(frozen=True, slots=True)
class Phase:
    """One rise and fall of the learning rates.

    Attributes:
        num_tokens: Tokens to train on, padding included, over all processes.
        mix: What is drawn.
        lr_scale: Factor on both learning rates at their highest.
        decay: Share of the phase at its end over which the learning rates fall linearly.
        lesson: What of a conversation is learnt.
        is_fresh: Whether it starts from the weights as the phase before would ship them, rounded to float16 and
            without the optimizers' memory. Such a phase can be run alone, from weights that were shipped.
        precision: Of the matrix products.
        lr_end: Share of the highest learning rates to which they fall: zero, or a phase is broken off.
    """

    num_tokens: int
    mix: corpus.Mix
    lr_scale: float
    decay: float
    lesson: Lesson = "all"
    is_fresh: bool = False
    precision: Precision = "float32"
    lr_end: float = 0.0


# The second phase lifts the rates once more and lets them fall for the whole of it. The third and fourth are for what
# those had hardly begun to teach: which of several tools fits. The third was broken off, because comparing two phrases,
# which thoughts asked for then, was not learnt in it. The last is long, for all that was still right too seldom.
PHASES = (
    Phase(22_000_000, "broad", 1.0, 0.45),
    Phase(22_500_000, "practice", 0.8, 1.0),
    Phase(10_802_000, "choice", 0.25, 1.0, "thinking", is_fresh=True, precision="bfloat16", lr_end=0.431),
    Phase(12_000_000, "choice", 0.2, 1.0, "thinking", is_fresh=True, precision="bfloat16"),
    Phase(50_000_000, "polish", 0.4, 1.0, "thinking", is_fresh=True, precision="bfloat16"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What decides the weights.

    Attributes:
        phases: One after the other.
        scale: Factor on the tokens of every phase, for a trial.
        tokens_per_step: Tokens of one optimizer step, over all processes.
        num_processes: Single-threaded processes that share each step.
        matrix_lr: Muon's learning rate, for the matrices.
        vector_lr: AdamW's learning rate, for the embedding and the norms.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the MLP.
        num_layers: Number of decoder layers.
        seed: Of the weights and of the data.
        compiles: Whether the layers are compiled, which takes a C++ compiler and half a minute.
    """

    phases: tuple[Phase, ...] = PHASES
    scale: float = 1.0
    tokens_per_step: int = 6_144
    num_processes: int = 2
    matrix_lr: float = 0.02
    vector_lr: float = 3e-3
    hidden_size: int = 128
    intermediate_size: int = 320
    num_layers: int = 12
    seed: int = 0
    compiles: bool = True

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return sum(self._phase_steps(phase) for phase in self.phases)

    @property
    def last_phase_start(self) -> int:
        """First step of the last phase."""
        return self.phase_at(self.num_steps - 1)[1]

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """Return the phase that `step` belongs to and its first step."""
        first = 0
        for phase in self.phases[:-1]:
            if step < first + self._phase_steps(phase):
                return phase, first
            first += self._phase_steps(phase)
        return self.phases[-1], first

    def lr_scale(self, step: int) -> float:
        """Return the factor on both learning rates at `step`: a short rise, a plateau, a fall to zero."""
        phase, first = self.phase_at(step)
        num_steps = self._phase_steps(phase)
        rise = min(1.0, (step - first + 1) / _WARM_UP_STEPS)
        fall = min(1.0, (first + num_steps - step) / max(1, round(phase.decay * num_steps)))
        return phase.lr_scale * min(rise, phase.lr_end + (1 - phase.lr_end) * fall)

    def _phase_steps(self, phase: Phase) -> int:
        return round(self.scale * phase.num_tokens) // self.tokens_per_step
