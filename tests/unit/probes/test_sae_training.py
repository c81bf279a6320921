"""Training finds the features that states are made of, and goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langnorm.errors import ModelError, OptionError
from langnorm.probes.sae import SAEConfig, SparseAutoencoder
from langnorm.probes.sae_training import SAETraining, geometric_median, measure_sae, train_sae

WIDTH, NUM_FEATURES = 16, 24


def sparse_states(num: int, seed: int, *, scale: float = 50.0) -> torch.Tensor:
    """Return states (N, d) that are each the sum of about two of 24 directions, around a point away from zero."""
    of_all, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    directions = torch.randn(NUM_FEATURES, WIDTH, generator=of_all)
    directions /= directions.norm(dim=1, keepdim=True)
    is_active = torch.rand(num, NUM_FEATURES, generator=generator) < 0.08
    strengths = is_active * (0.5 + torch.rand(num, NUM_FEATURES, generator=generator))
    return scale * (strengths @ directions + torch.randn(WIDTH, generator=of_all))


def training(**options: Any) -> SAETraining:
    """Return a short training."""
    defaults = {"num_steps": 300, "batch_size": 128, "learning_rate": 5e-3, "dead_steps": 40, "num_auxiliary": 8}
    return SAETraining(**{**defaults, **options})


TOP_K = SAEConfig(WIDTH, 48, "topk", 4)
RELU = SAEConfig(WIDTH, 48, "standard", None)


@pytest.mark.parametrize("config", [TOP_K, RELU], ids=["topk", "standard"])
def test_sparse_features_are_found(config: SAEConfig) -> None:
    """On states it has not seen; decoder rows have length 1, and few features are dead."""
    sae = train_sae(sparse_states(4000, 1), config, training(), is_quiet=True)
    quality = measure_sae(sae, sparse_states(1000, 2))
    assert quality.explained_variance > 0.9
    assert quality.share_dead < 0.15
    assert quality.num_active <= 4 or config is RELU
    assert quality.num_states == 1000
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(48))
    assert not any(weight.requires_grad for weight in sae.parameters())


def test_a_penalty_on_activations_makes_them_fewer() -> None:
    """The L1 weight trades error for sparsity."""
    states = sparse_states(2000, 1)
    few, many = (
        measure_sae(train_sae(states, RELU, training(num_steps=200, l1=l1), is_quiet=True), states) for l1 in (0.2, 0.0)
    )
    assert few.num_active < many.num_active / 2
    assert few.explained_variance < many.explained_variance


def test_the_scale_of_states_makes_no_difference() -> None:
    """They are scaled to one median norm first, and the SAE that is returned takes them as they are."""
    options = training(num_steps=50)
    small, large = (
        train_sae(sparse_states(1000, 1, scale=scale), TOP_K, options, is_quiet=True) for scale in (1.0, 4096.0)
    )
    states = sparse_states(100, 2, scale=1.0)
    torch.testing.assert_close(large.encode(states * 4096), small.encode(states) * 4096, rtol=1e-3, atol=1e-2)


class StoppedError(Exception):
    """What stops a training here, as Ctrl-C would."""


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its last checkpoint: the weights are the same to the last bit."""
    from langnorm.probes import sae_training

    states, options = sparse_states(500, 1), training(num_steps=60, checkpoint_steps=20)
    whole = train_sae(states, TOP_K, options, is_quiet=True)
    take_step = sae_training._Trainer.take_step

    def take_some(trainer: Any, batch: torch.Tensor) -> torch.Tensor:
        if trainer.step == 47:
            raise StoppedError
        return take_step(trainer, batch)

    monkeypatch.setattr(sae_training._Trainer, "take_step", take_some)
    with pytest.raises(StoppedError):
        train_sae(states, TOP_K, options, folder=tmp_path, is_quiet=True)
    monkeypatch.undo()
    steps = []

    def count(trainer: Any, batch: torch.Tensor) -> torch.Tensor:
        steps.append(trainer.step)
        return take_step(trainer, batch)

    monkeypatch.setattr(sae_training._Trainer, "take_step", count)
    again = train_sae(states, TOP_K, options, folder=tmp_path, is_quiet=True)

    assert steps == list(range(40, 60))
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
    # And what is finished is not trained again.
    steps.clear()
    finished = train_sae(states, TOP_K, options, folder=tmp_path, is_quiet=True)
    assert torch.equal(finished.W_enc, whole.W_enc)
    assert not steps


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    """As is one that is damaged."""
    states = sparse_states(200, 1)
    train_sae(states, TOP_K, training(num_steps=4), folder=tmp_path, is_quiet=True)
    with pytest.raises(ModelError, match="with other options"):
        train_sae(states, TOP_K, training(num_steps=5), folder=tmp_path, is_quiet=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="Delete it to train from the start"):
        train_sae(states, TOP_K, training(num_steps=4), folder=tmp_path, is_quiet=True)


def test_states_may_come_one_after_the_other() -> None:
    """In parts of any size, of numpy too, half precision included."""

    def parts() -> Iterator[np.ndarray]:
        yield from (sparse_states(300, seed).half().numpy() for seed in range(180))

    sae = train_sae(parts(), TOP_K, training(), is_quiet=True)
    assert measure_sae(sae, sparse_states(500, 999)).explained_variance > 0.85


def test_too_few_states_are_said_so() -> None:
    """Those that come one after the other are used once."""
    with pytest.raises(OptionError, match=r"were enough for `\d+` of `num_steps=300` steps"):
        train_sae(iter([sparse_states(300, 1), sparse_states(300, 2)]), TOP_K, training(), is_quiet=True)
    with pytest.raises(OptionError, match="nothing to train on"):
        train_sae([], TOP_K, training(), is_quiet=True)
    with pytest.raises(OptionError, match="'states'"):
        train_sae(["states"], TOP_K, training(), is_quiet=True)  # type: ignore[list-item]


@pytest.mark.parametrize(
    "states",
    [
        torch.zeros(4, WIDTH + 1),
        torch.zeros(WIDTH),
        torch.zeros(4, WIDTH, dtype=torch.int64),
        torch.zeros(0, WIDTH),
        torch.zeros(4, WIDTH),
        torch.full((4, WIDTH), torch.nan),
    ],
    ids=["width", "one", "integers", "none", "zero", "nan"],
)
def test_states_are_checked(states: torch.Tensor) -> None:
    """Their form, and whether they are numbers and not all zero."""
    with pytest.raises(OptionError, match=r"are not allowed|no numbers"):
        train_sae(states, TOP_K, training(), is_quiet=True)


def test_options_are_checked() -> None:
    """And what cannot be trained is refused."""
    with pytest.raises(OptionError, match="num_steps"):
        training(num_steps=0)
    with pytest.raises(OptionError, match="bias_start"):
        training(bias_start="zero")
    with pytest.raises(OptionError, match="jumprelu"):
        train_sae(sparse_states(9, 1), SAEConfig(WIDTH, 4, "jumprelu", None), is_quiet=True)


def test_quality_is_that_of_the_definition() -> None:
    """In numpy: variance explained, mean number of active features, share of features that are never active."""
    sae = SparseAutoencoder(SAEConfig(WIDTH, 6, "topk", 2), seed=3).requires_grad_(requires_grad=False)
    states = sparse_states(50, 1, scale=1.0)
    h, f, out = (x.numpy().astype(np.float64) for x in (states, sae.encode(states), sae(states)))
    quality = measure_sae(sae, states, chunk=7)
    assert quality.explained_variance == pytest.approx(1 - ((out - h) ** 2).sum() / ((h - h.mean(0)) ** 2).sum())
    assert quality.num_active == pytest.approx((f > 0).sum(1).mean())
    assert quality.share_dead == pytest.approx((f <= 0).all(0).mean())


def test_the_geometric_median_is_where_distances_are_least() -> None:
    """Outliers pull the mean, and hardly pull it."""
    points = torch.cat([torch.randn(99, 3, generator=torch.Generator().manual_seed(1)), torch.full((5, 3), 1000.0)])
    median = geometric_median(points)
    assert median.norm() < 0.5
    around = median + 0.05 * torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    least = (points - median).norm(dim=1).sum()
    assert all((points - point).norm(dim=1).sum() >= least - 1e-3 for point in around)
