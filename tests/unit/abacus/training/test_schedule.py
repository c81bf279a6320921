"""The schedule of the training run."""

from __future__ import annotations

from dataclasses import replace

from langnorm.abacus.training.schedule import Phase, Run


def test_learning_rates_rise_stay_and_fall() -> None:
    """In each phase a short rise, a plateau, and a fall to zero over its last share."""
    run = Run((Phase(1_000 * 6_144, "broad", 1.0, 0.45), Phase(500 * 6_144, "practice", 0.5, 1.0)))
    scales = [run.lr_scale(step) for step in range(run.num_steps)]
    assert len(scales) == 1_500
    assert scales[0] < 0.05
    assert scales[100] == scales[540] == 1.0
    assert 0.45 < scales[775] < 0.55
    assert 0 < scales[999] < 0.01
    assert scales[1_000] < 0.05
    assert 0.24 < scales[1_250] < 0.26
    assert 0 < scales[-1] < 0.01
    assert replace(run, scale=0.5).num_steps == 750


def test_a_phase_that_is_broken_off_ends_above_zero() -> None:
    """The rates fall towards the share that is left."""
    run = Run((Phase(1_000 * 6_144, "choice", 0.5, 1.0, lr_end=0.4),))
    scales = [run.lr_scale(step) for step in range(run.num_steps)]
    assert abs(scales[500] - 0.35) < 0.001
    assert abs(scales[-1] - 0.2) < 0.001
