"""The figures of the first diagnosis are those of plain loops, and find what was planted."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import MissingDependencyError
from langnorm.evaluation.statistics import Interval
from langnorm.probes.figures import write_figures
from langnorm.probes.signal_figures import RecordedTokens, explained_by_group, signal_figures, trigger_rates
from langnorm.probes.signal_page import signal_page

NUM_LAYERS = 4
LATE = (2,)


def answer(problem: int, norms: Any, ids: Sequence[int] | None = None, **options: Any) -> RecordedTokens:
    """Return an answer with these norms (T, L)."""
    rows = np.array(norms, dtype=float).reshape(-1, NUM_LAYERS)
    tokens = np.array(range(len(rows)) if ids is None else ids, dtype=np.int64)
    defaults = {
        "surprisal": np.linspace(1, 0, len(rows)),
        "texts": [f"<{token}>" for token in tokens],
        "is_right": problem % 2 == 0,
        "is_cut": False,
    }
    return RecordedTokens(problem, rows, tokens, **{**defaults, **options})


def planted(num_problems: int = 12) -> tuple[list[RecordedTokens], list[RecordedTokens]]:
    """Return answers; reasoned ones have norms that are a fifth higher after layer 2, and grow with position there."""
    rng, reasoned, direct = np.random.default_rng(1), [], []
    for problem in range(num_problems):
        of_problem = 10 + problem
        long, short = (of_problem * np.exp(rng.normal(0, 0.05, (length, NUM_LAYERS))) for length in (30, 4))
        long[:, 2] *= np.linspace(1.0, 1.4, 30)
        reasoned.append(answer(problem, long, rng.integers(0, 5, 30)))
        direct.append(answer(problem, short, range(4)))
    return reasoned, direct


def test_what_was_planted_is_found() -> None:
    """In its layer alone, with intervals that hold it."""
    figures = signal_figures(*planted(), LATE)
    rows = figures["layers"]
    for row in rows:
        assert (row["relative_difference"].low > 0.1) == (row["layer"] == 2)
        assert (row["correlation_with_position"].low > 0.3) == (row["layer"] == 2)
        assert (row["correlation_with_surprisal"].high < -0.3) == (row["layer"] == 2)
        assert abs(row["share_explained_by_token"]) < 0.1
    assert rows[2]["relative_difference"].mean == pytest.approx(0.2, abs=0.03)
    assert figures["late"]["against_first_half"].low > 0.1
    assert figures["late"]["relative_difference_on_the_same_tokens"].mean == pytest.approx(0.2, abs=0.04)
    assert figures["num_tokens"] == {"reasoned": 360, "direct": 48}
    assert figures["right"]["reasoned"].mean == 0.5
    assert figures["sinks"]["number"] == 0


def test_sinks_are_counted_and_left_out() -> None:
    """They would be most of every mean."""
    reasoned, direct = planted()
    before = signal_figures(reasoned, direct, LATE)
    first = reasoned[0]
    row = np.full((1, NUM_LAYERS), 5000.0)
    reasoned[0] = answer(0, np.concatenate([row, first.norms]), [9, *first.ids.tolist()], texts=["\n", *first.texts])
    after = signal_figures(reasoned, direct, LATE)
    assert after["sinks"]["number"] == 1
    assert after["sinks"]["texts"] == [{"text": "\n", "number": 1}]
    assert after["sinks"]["median_position"] == 0
    assert after["sinks"]["highest_over_median"] > 100
    for one, other in zip(before["layers"], after["layers"], strict=True):
        assert one["mean_reasoned"].mean == pytest.approx(other["mean_reasoned"].mean)
        assert one["quantile_99"] == pytest.approx(other["quantile_99"])


def test_an_answer_without_tokens_is_right_or_wrong_all_the_same() -> None:
    """One that ended at once has none that were run, nor has one of attention sinks alone."""
    reasoned, direct = planted(4)
    direct[1] = answer(1, [])
    direct[3] = answer(3, np.full((1, NUM_LAYERS), 5000.0))
    figures = signal_figures(reasoned, direct, LATE)
    assert figures["num_answers"]["direct"] == 4
    assert figures["right"]["direct"].mean == 0.5


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-9, 9)), min_size=2, max_size=20))
def test_the_share_that_tokens_explain_is_that_of_the_definition(pairs: list[tuple[int, float]]) -> None:
    """By the variances within groups and of all."""
    groups: dict[int, list[float]] = {}
    for group, value in pairs:
        groups.setdefault(group, []).append(value)
    values = [value for _, value in pairs]
    found = explained_by_group(np.array(values), np.array([group for group, _ in pairs]))
    free = len(values) - len(groups)
    whole = statistics.variance(values)
    if free == 0 or whole < 1e-9:
        assert free or math.isnan(found)
        return
    within = sum((x - statistics.fmean(group)) ** 2 for group in groups.values() for x in group) / free
    assert found == pytest.approx(1 - within / whole, abs=1e-6)


def test_groups_that_say_nothing_explain_nothing() -> None:
    """However many they are; and groups that say everything explain all."""
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 1500, 3000)
    assert abs(explained_by_group(rng.normal(size=3000), ids)) < 0.1
    assert explained_by_group(ids.astype(float), ids) == pytest.approx(1)


def test_trigger_rates_are_those_of_plain_rules() -> None:
    """Known thresholds by numpy's quantiles, the running one token by token; the reference has none in its warm-up."""
    reasoned, _ = planted(3)
    norms = np.concatenate([one.norms for one in reasoned])
    rates = trigger_rates(reasoned)
    first, third = np.quantile(norms, [0.25, 0.75], axis=0)
    assert rates["iqr"] == pytest.approx((norms > third + 1.5 * (third - first)).mean(0))
    assert next(name for name in rates if name.startswith("quantile")) == "quantile 0.9"
    assert rates["quantile 0.9"] == pytest.approx((norms > np.quantile(norms, 0.9, axis=0)).mean(0))
    above = np.zeros(NUM_LAYERS)
    for one in reasoned:
        for step in range(16, len(one.norms)):
            low, high = np.quantile(one.norms[:step], [0.25, 0.75], axis=0)
            above += one.norms[step] > high + 1.5 * (high - low)
    assert rates["running"] == pytest.approx(above / len(norms))
    assert all(math.isnan(rate) for rate in rates["reference"])


def test_the_page_has_the_figures_and_no_markup_of_others() -> None:
    """Plots, sentences, a row for each layer; texts of tokens and titles are escaped."""
    reasoned, direct = planted()
    reasoned[0].norms[3] = 9000
    object.__setattr__(reasoned[0], "texts", ["<script>"] * 30)
    page = signal_page(signal_figures(reasoned, direct, LATE), "a <b> model")
    assert page.count("<svg") == 4
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &lt;b&gt; model" in page
    assert page.count("<tr>") == 1 + NUM_LAYERS
    assert "The difference is larger there than in the first half of the layers" in page
    assert "this model does not" not in page
    assert "asked to answer at once, this model does not" in signal_page(signal_figures(reasoned, reasoned, LATE), "m")


def test_without_direct_answers_there_is_a_page_all_the_same(tmp_path: Path) -> None:
    """What cannot be said is said so, and is null in the figures."""
    reasoned, _ = planted()
    empty = [answer(problem, [], []) for problem in range(12)]
    figures = signal_figures(reasoned, empty, LATE)
    page = signal_page(figures, "a model")
    assert "not comparable" in page
    assert "nan" not in page.partition("<h2>All layers</h2>")[2]
    write_figures(tmp_path / "figures.json", figures)
    stored = json.loads((tmp_path / "figures.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert stored["late"]["relative_difference"] == {"mean": None, "low": None, "high": None}
    assert stored["layers"][3]["layer"] == 3


def test_of_few_tokens_no_page_says_that_something_is_no_number() -> None:
    """A dash stands for what cannot be known of them, or no sentence."""
    short = [answer(problem, [[1.0 + problem] * NUM_LAYERS] * 2, range(2)) for problem in range(2)]
    page = signal_page(signal_figures(short, short, LATE), "a model")
    said = page.partition("<figure>")[0] + page.partition("<h2>Attention sinks</h2>")[2]
    assert "nan" not in said
    assert "<td>–</td>" in said


def test_figures_are_written_in_plain_types(tmp_path: Path) -> None:
    """Intervals have names, and keys are texts."""
    write_figures(tmp_path / "x.json", {"a": {1: (Interval(1.0, 0.5, math.inf), "é")}})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": {"1": [{"mean": 1.0, "low": 0.5, "high": None}, "é"]}}


def test_what_draws_plots_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"langnorm\[viz\]"):
        signal_page(signal_figures(*planted(), LATE), "a model")
