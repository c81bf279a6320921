"""Plots show the numbers of a trace."""

from __future__ import annotations

import sys

import pytest

from langnorm import NormTrace
from langnorm.errors import MissingDependencyError, OptionError
from langnorm.viz import plot_layers, plot_steps
from tests.support.traces import READING, trace


def test_layers_are_a_curve_for_each_answer(tmp_path) -> None:
    """Of mean norms, with a legend where they have names."""
    axes = plot_layers(trace(), trace(READING), names=["one", r"$\two$"])
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[9.0, 3.0], [10.0, 30.0]]] * 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", r"\$\two\$"], "no formula"
    assert plot_layers(trace(), ax=axes) is axes
    assert len(axes.lines) == 3
    axes.figure.savefig(tmp_path / "layers.png")


def test_steps_are_bars(tmp_path) -> None:
    """As long as their intensity, the largest in another colour, beside their texts."""
    axes = plot_steps(trace(READING), texts=["It costs $1 + $2.", "x" * 100])
    assert [bar.get_width() for bar in axes.patches] == [0.45, 0.07]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [r"It costs \$1 + \$2.  1", "x" * 39 + "…  2"]
    axes.figure.savefig(tmp_path / "steps.png")
    assert plot_steps(trace()).get_xlabel() == "rank"


def test_what_cannot_be_plotted_is_refused(monkeypatch) -> None:
    """With what to give instead; without matplotlib, with how to install it."""
    empty = NormTrace(tokens=1, layers=(9,), mean=None, steps=())
    with pytest.raises(OptionError, match="no norms to plot"):
        plot_layers(empty)
    with pytest.raises(OptionError, match="Give 1 names"):
        plot_layers(trace(), names=["a", "b"])
    with pytest.raises(OptionError, match="has 0 steps"):
        plot_steps(empty)
    with pytest.raises(OptionError, match="has 2 steps, and there are 1 texts"):
        plot_steps(trace(), texts=["a"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"langnorm\[viz\]"):
        plot_layers(trace())
