"""The schedule of the training run."""

from __future__ import annotations

import pytest

from langnorm.abacus.schedule import Run


def test_learning_rates_rise_stay_and_fall() -> None:
    """A short rise, a plateau, and a fall to zero over the last share."""
    run = Run(num_tokens=1_000 * 6_144, tokens_per_step=6_144, decay=0.45)
    scales = [run.lr_scale(step) for step in range(run.num_steps)]
    assert len(scales) == 1_000
    assert scales[0] < 0.05
    assert scales[100] == scales[540] == 1.0
    assert 0.45 < scales[775] < 0.55
    assert 0 < scales[999] < 0.01


@pytest.mark.parametrize(("length", "padded"), [(1, 64), (63, 64), (64, 64), (65, 128)])
def test_rows_are_padded_to_a_multiple(length: int, padded: int) -> None:
    """The next one, and none where there is nothing to pad to."""
    assert Run(pad_multiple=64).padded(length) == padded
    assert Run(pad_multiple=1).padded(length) == length
