"""Trains sparse autoencoders on hidden states.

Top-k and the auxiliary loss against dead features are those of "Scaling and evaluating sparse autoencoders" (arXiv
2406.04093). ReLU with an L1 penalty is that of "Towards Monosemanticity" (Anthropic, 2023), with the same auxiliary
loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langnorm.checks import check_choice, check_integer, check_number
from langnorm.errors import ModelError, OptionError
from langnorm.probes.sae import SAEConfig, SparseAutoencoder
from langnorm.probes.sae_batches import state_batches

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class SAETraining:
    """How an SAE is trained.

    Attributes:
        num_steps: Number of steps.
        batch_size: States of a step.
        learning_rate: Of Adam; it falls to zero over the last fifth of the steps.
        l1: Weight of the sum of activations in the loss of `standard`, whose other part is the squared error as a share
            of the variance. It grows over the first tenth of the steps.
        bias_start: What the decoder's bias starts at: the `"median"` (geometric) or `"mean"` of the states.
        dead_steps: A feature that was active on no state of so many steps is dead.
        auxiliary: Weight of the auxiliary loss: what the dead features make of the error of the others.
        num_auxiliary: Dead features that take part for each state.
        seed: Of weights and order of states.
        checkpoint_steps: Steps between two checkpoints, where a folder for them is given.
    """

    num_steps: int = 5000
    batch_size: int = 4096
    learning_rate: float = 1e-3
    l1: float = 0.01
    bias_start: str = "median"
    dead_steps: int = 200
    auxiliary: float = 1 / 32
    num_auxiliary: int = 256
    seed: int = 0
    checkpoint_steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "dead_steps", "num_auxiliary", "checkpoint_steps"):
            check_integer(name, getattr(self, name), low=1)
        check_number("learning_rate", self.learning_rate, low=0, is_low_open=True)
        check_number("l1", self.l1, low=0)
        check_number("auxiliary", self.auxiliary, low=0)
        check_choice("bias_start", self.bias_start, ("median", "mean"))
        check_integer("seed", self.seed, low=0)


def train_sae(
    states: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
    config: SAEConfig,
    training: SAETraining | None = None,
    *,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    is_quiet: bool = False,
) -> SparseAutoencoder:
    """Return an SAE that was trained on hidden states.

    All states are scaled by one number, so that their median norm is sqrt(d); the SAE that is returned takes states as
    they are. Its decoder rows have length 1.

    Args:
        states: All states (N, d_in), or some at a time, such as those of one batch of a model after the other; these
            are mixed, and must be enough for all steps.
        config: What the SAE is.
        training: How it is trained.
        device: Where. All states that lie on it already are not copied.
        folder: Where a checkpoint is kept: a training that was stopped goes on from it, with all states exactly as if
            it had not been stopped.
        is_quiet: Whether there is no progress bar.

    Raises:
        OptionError: The states are not what `config` says, or not numbers, or too few.
        ModelError: The checkpoint is of another training.
    """
    from tqdm import tqdm

    training = training or SAETraining()
    if config.architecture == "jumprelu":
        msg = "`architecture='jumprelu'` can be loaded and not trained. Use topk or standard."
        raise OptionError(msg)
    trainer = _Trainer(config, training, torch.device(device))
    checkpoint = folder / CHECKPOINT_FILE if folder else None
    if checkpoint and checkpoint.exists():
        trainer.load(checkpoint)
    first = trainer.step
    if first == training.num_steps:
        return trainer.result()
    batches = state_batches(
        states, config.d_in, training.batch_size, training.num_steps, seed=training.seed, first=first
    )
    with _quick_products(), tqdm(total=training.num_steps, initial=first, unit="step", disable=is_quiet) as bar:
        if first == 0:
            trainer.start(next(batches))
        for batch in batches:
            loss = trainer.take_step(batch)
            bar.update()
            if trainer.step % 100 == 0:
                bar.set_postfix(error=f"{float(loss):.3f}", dead=f"{trainer.share_dead():.1%}", refresh=False)
            is_last = trainer.step == training.num_steps
            if checkpoint and (is_last or trainer.step % training.checkpoint_steps == 0):
                trainer.save(checkpoint)
            if is_last:
                return trainer.result()
    msg = (
        f"The states were enough for `{trainer.step}` of `num_steps={training.num_steps}` steps of "
        f"`batch_size={training.batch_size}`. Give more states, or ask for fewer steps."
    )
    raise OptionError(msg)


@dataclass(frozen=True, slots=True)
class SAEQuality:
    """How well an SAE does on states.

    Attributes:
        explained_variance: 1 minus the squared error over the squared distance from the mean state.
        num_active: Mean number of active features of a state (L0).
        share_dead: Share of features that are active on none of the states.
        num_states: Number of states.
    """

    explained_variance: float
    num_active: float
    share_dead: float
    num_states: int


@torch.no_grad()
def measure_sae(sae: SparseAutoencoder, states: Tensor, *, chunk: int = 4096) -> SAEQuality:
    """Return how well an SAE does on states (N, d_in); N is at least 2."""
    device = sae.W_enc.device
    total = sum(part.to(device).double().sum(0) for part in states.split(chunk))
    mean = (total / len(states)).float() if isinstance(total, Tensor) else torch.zeros(())
    error = distance = active = torch.zeros((), dtype=torch.float64, device=device)
    was_active = torch.zeros(sae.config.d_sae, dtype=torch.bool, device=device)
    for part in states.split(chunk):
        h = part.to(device).float()
        activations = sae.encode(h)
        is_active = activations > 0
        error = error + (sae.decode(activations) - h).double().square().sum()
        distance = distance + (h - mean).double().square().sum()
        active = active + is_active.sum()
        was_active |= is_active.any(0)
    return SAEQuality(
        explained_variance=float(1 - error / distance),
        num_active=float(active / len(states)),
        share_dead=float((~was_active).double().mean()),
        num_states=len(states),
    )


class _Trainer:
    """The state of a training: weights, optimizer, number of steps, and when each feature was last active."""

    def __init__(self, config: SAEConfig, training: SAETraining, device: torch.device) -> None:
        self.config, self.training, self.device = config, training, device
        self.sae = SparseAutoencoder(config, seed=training.seed).to(device)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=training.learning_rate, betas=(0.9, 0.999))
        self.step = 0
        self.steps_idle = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
        self.scale = torch.ones((), device=device)
        self.variance = torch.ones((), device=device)

    def share_dead(self) -> float:
        return float(self._is_dead().float().mean())

    def _is_dead(self) -> Tensor:
        return self.steps_idle >= self.training.dead_steps

    @torch.no_grad()
    def start(self, states: Tensor) -> None:
        """Take scale and bias from some states (N, d_in)."""
        states = states.to(self.device).float()
        norm = states.norm(dim=1).median()
        if not torch.isfinite(states).all() or norm == 0:
            msg = "The states have values that are no numbers, or are all zero. Check the model's dtype."
            raise OptionError(msg)
        self.scale = math.sqrt(self.config.d_in) / norm
        scaled = states * self.scale
        mean = scaled.mean(0)
        self.sae.b_dec.copy_(geometric_median(scaled) if self.training.bias_start == "median" else mean)
        self.variance = (scaled - mean).square().sum(1).mean().clamp(min=1e-12)

    def take_step(self, states: Tensor) -> Tensor:
        """Change the weights by one batch (B, d_in); return the squared error as a share of the variance."""
        training, sae = self.training, self.sae
        h = states.to(self.device).float() * self.scale
        pre_activations = sae.pre_activations(h)
        activations = sae.activate(pre_activations)
        error = sae.decode(activations) - h
        loss = share = error.square().sum(1).mean() / self.variance
        if self.config.architecture == "standard":
            warm = min(1.0, 10 * (self.step + 1) / training.num_steps)
            loss = loss + training.l1 * warm * activations.sum(1).mean() / self.variance.sqrt()
        if training.auxiliary and self.step >= training.dead_steps:
            loss = loss + training.auxiliary * self._auxiliary_loss(pre_activations, error.detach())
        rate = min(1.0, 5 * (1 - self.step / training.num_steps)) * min(1.0, (self.step + 1) / 100)
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            rows, gradient = sae.W_dec.data, sae.W_dec.grad
            assert gradient is not None
            gradient -= (gradient * rows).sum(1, keepdim=True) * rows  # what would only change the rows' length
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            self.optimizer.step()
            rows /= rows.norm(dim=1, keepdim=True)
            self.steps_idle = torch.where((activations > 0).any(0), 0, self.steps_idle + 1)
        self.step += 1
        return share.detach()

    def _auxiliary_loss(self, pre_activations: Tensor, error: Tensor) -> Tensor:
        """Return the squared error, as a share of that of the others, of what dead features make of it."""
        is_dead = self._is_dead()
        num_dead = is_dead.sum()
        k = min(self.training.num_auxiliary, self.config.d_sae)
        top = pre_activations.masked_fill(~is_dead, -torch.inf).topk(k, dim=-1, sorted=False)
        values = top.values.where(top.values > -torch.inf, 0.0).relu()
        activations = torch.zeros_like(pre_activations).scatter(-1, top.indices, values)
        rest = (activations @ self.sae.W_dec + error).square().sum(1).mean()
        share = rest / error.square().sum(1).mean().clamp(min=1e-12)
        return torch.where(num_dead > 0, share, torch.zeros_like(share)) * (num_dead / k).clamp(max=1)

    def result(self) -> SparseAutoencoder:
        """Return the SAE for states that are not scaled."""
        sae = SparseAutoencoder(self.config, seed=self.training.seed).to(self.device)
        sae.load_state_dict(self.sae.state_dict())
        sae.scale_states(1 / float(self.scale))
        return sae.requires_grad_(requires_grad=False)

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        stored = {
            "about": self._about(),
            "step": self.step,
            "sae": self.sae.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps_idle": self.steps_idle,
            "scale": self.scale,
            "variance": self.variance,
        }
        torch.save(stored, partial)
        partial.replace(file)

    def load(self, file: Path) -> None:
        try:
            stored: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
            is_same = stored["about"] == self._about()
        except Exception as error:
            msg = f"`{file}` cannot be read ({error}). Delete it to train from the start."
            raise ModelError(msg) from error
        if not is_same:
            msg = f"`{file}` is the checkpoint of a training with other options. Delete it, or give another folder."
            raise ModelError(msg)
        self.step, self.steps_idle = stored["step"], stored["steps_idle"]
        self.scale, self.variance = stored["scale"], stored["variance"]
        self.sae.load_state_dict(stored["sae"])
        self.optimizer.load_state_dict(stored["optimizer"])

    def _about(self) -> dict[str, Any]:
        return {"config": asdict(self.config), "training": asdict(self.training)}


def geometric_median(states: Tensor, *, num_rounds: int = 50) -> Tensor:
    """Return the point (d,) with the least sum of distances from states (N, d), by Weiszfeld's rounds."""
    point = states.mean(0)
    for _ in range(num_rounds):
        weights = 1 / (states - point).norm(dim=1).clamp(min=1e-6)
        point = (weights[:, None] * states).sum(0) / weights.sum()
    return point


@contextmanager
def _quick_products() -> Iterator[None]:
    """Let float32 products use TF32 on devices that have it; what is measured later does not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
