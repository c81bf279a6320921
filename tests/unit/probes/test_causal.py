"""The controls of a causal check suppress as much, and its report says what the outcomes say."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.probes.causal import CONTROLS, Arm, CausalCheck, CausalResult
from langnorm.probes.causal_masks import CLASSES, class_of, draw_mask
from langnorm.probes.causal_report import causal_page, causal_report
from langnorm.probes.causal_store import CausalStore, Outcome
from langnorm.probes.problems import check_seeds, read_problems

LAYERS = (3, 5)


@st.composite
def high_runs(draw: st.DrawFn) -> tuple[Outcome, list[str]]:
    """Draw an answer whose tokens were shrunk at two layers, and the classes of another one of at least its length."""
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=30))
    others = draw(st.lists(st.sampled_from(CLASSES), min_size=len(classes), max_size=40))
    tokens = st.lists(st.integers(0, len(classes) - 1), unique=True)
    shrunk = {layer: sorted(draw(tokens)) for layer in LAYERS}
    return Outcome(is_right=True, is_cut=False, num_run=len(classes), shrunk=shrunk, classes=classes), others


def patterns(masks: list[list[int]]) -> Counter[tuple[bool, ...]]:
    """Return how many tokens are in which of the masks."""
    return Counter(tuple(token in mask for mask in masks) for token in set().union(*masks))


@settings(max_examples=200)
@given(high_runs(), st.integers(0, 99), st.booleans())
def test_a_mask_has_as_many_tokens_in_the_same_layers(run: tuple[Outcome, list[str]], seed: int, matched: bool) -> None:
    """At each layer by itself, and of those that are shrunk at several layers together; all within the answer."""
    high, classes = run
    masks = draw_mask(high, classes, LAYERS, random.Random(seed), is_matched=matched)
    assert patterns(masks) == patterns([list(high.shrunk[layer]) for layer in LAYERS])
    assert all(mask == sorted(set(mask)) for mask in masks)
    assert all(0 <= token < len(classes) for mask in masks for token in mask)


@settings(max_examples=200)
@given(high_runs(), st.integers(0, 99))
def test_a_matched_mask_has_the_classes_of_the_tokens_that_it_stands_for(run: Any, seed: int) -> None:
    """As many of each class as were shrunk, or all that there are."""
    high, classes = run
    shrunk = set().union(*high.shrunk.values())
    masked = set().union(*draw_mask(high, classes, LAYERS, random.Random(seed), is_matched=True))
    wanted, there = Counter(high.classes[token] for token in shrunk), Counter(classes)
    found = Counter(classes[token] for token in masked)
    assert all(found[name] >= min(wanted[name], there[name]) for name in CLASSES)


def test_masks_are_random_and_reproducible() -> None:
    """Every token is as likely as another."""
    high = Outcome(True, False, 10, {3: [0], 5: []}, None, ["word"] * 10)
    drawn = Counter(
        draw_mask(high, ["word"] * 10, LAYERS, random.Random(seed), is_matched=False)[0][0] for seed in range(5000)
    )
    assert all(400 < drawn[token] < 600 for token in range(10))
    again = [draw_mask(high, ["word"] * 10, LAYERS, random.Random(7), is_matched=True) for _ in range(2)]
    assert again[0] == again[1]


def test_a_mask_for_a_shorter_answer_has_what_fits() -> None:
    """The rest is left out, and the report says so."""
    high = Outcome(True, False, 4, {3: [0, 1, 2, 3], 5: [2]}, None, ["word"] * 4)
    masks = draw_mask(high, ["word"] * 2, LAYERS, random.Random(1), is_matched=False)
    assert masks[0] == [0, 1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" 42", "number"),
        ("1,000", "number"),
        (".", "symbol"),
        (" =", "symbol"),
        ("\n", "line break"),
        ("  ", "space"),
        ("", "space"),
        (" the", "word"),
        ("So", "word"),
        ("ing", "part of a word"),
        ("x2", "part of a word"),
    ],
)
def test_tokens_have_a_class(text: str, name: str) -> None:
    """By what they spell."""
    assert class_of(text) == name
    assert name in CLASSES


def outcomes(right: list[int], shrunk: int = 0, planned: int | None = None) -> list[Outcome]:
    """Return outcomes of 10 tokens."""
    return [Outcome(bool(x), False, 10, {3: list(range(shrunk))}, planned) for x in right]


def result() -> CausalResult:
    """Return what a check of four problems with two seeds found."""
    found = {
        "high": outcomes([0, 0, 1, 0, 0, 0, 0, 0], 2),
        "random": outcomes([1, 1, 1, 0, 1, 1, 0, 0], 2, 2),
        "same_class": outcomes([1, 0, 1, 0, 1, 1, 0, 1], 1, 2),
    }
    arm = Arm((3,), 0.9, (5.0,), found)
    return CausalResult(CausalCheck(seeds=[1, 2]), 4, outcomes([1, 1, 1, 0, 1, 1, 1, 0]), [arm])


def test_the_report_has_the_shares_of_right_answers_and_their_paired_differences() -> None:
    """Of each problem, the mean over seeds first."""
    report = causal_report(result())
    assert report["baseline"]["right"].mean == 6 / 8
    arm = report["arms"][0]
    assert arm["share_of_states"] == 2 / 10
    assert arm["conditions"]["high"]["right"].mean == 1 / 8
    assert arm["conditions"]["random"]["share_as_many_as_planned"] == 1.0
    assert arm["conditions"]["same_class"]["share_as_many_as_planned"] == 0.0
    assert arm["conditions"]["high"]["share_as_many_as_planned"] is None
    difference = [statistics.fmean(pair) for pair in [(-1, -1), (-1, -1), (0, 0), (0, 0)]]
    assert arm["high_against"]["random"].mean == statistics.fmean(difference)
    assert arm["high_against"]["random"].high <= 0
    assert set(arm["conditions"]) == {"high", *CONTROLS}
    json.dumps(report)


def test_the_page_says_what_the_figures_mean() -> None:
    """Whether they support the claim, speak against it, or do neither."""
    page = causal_page(causal_report(result()), "a model")
    assert "# Causal check: a model" in page
    assert "| as many random tokens | 62.5%" in page
    lost = causal_report(result())
    for interval, verdict in (((-0.5, -0.6, -0.4), "supports"), ((0.5, 0.4, 0.6), "speaks against")):
        lost["arms"][0]["high_against"]["random"] = type(lost["baseline"]["right"])(*interval)
        assert f"That {verdict} the claim" in causal_page(lost, "a model")


def test_a_report_has_the_controls_that_were_run() -> None:
    """One alone, where the check has one."""
    both = result()
    alone = {name: outcomes for name, outcomes in both.arms[0].outcomes.items() if name != "same_class"}
    check = CausalCheck(seeds=[1, 2], controls=["random"])
    report = causal_report(replace(both, check=check, arms=[replace(both.arms[0], outcomes=alone)]))
    assert set(report["arms"][0]["high_against"]) == {"random"}
    page = causal_page(report, "a model")
    assert "as many random tokens" in page
    assert "of the same class" not in page


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    """By a check with the same options; another one is refused, and so is a file that is no store."""
    path, done = tmp_path / "done", outcomes([1, 0], 2, 2)
    store = CausalStore(path, {"seeds": (1, 2)})
    store.put("baseline", done, {3: [1.5]})
    again = CausalStore(path, {"seeds": [1, 2]})
    assert again.get("baseline") == done
    assert again.taus == {3: [1.5]}
    assert again.get("high") is None
    with pytest.raises(OptionError, match="other options"):
        CausalStore(path, {"seeds": [1]})
    for content in ("[]", "{", '{"about": {"seeds": [1, 2]}, "thresholds": {}, "done": {"x": [1]}}'):
        path.write_text(content)
        with pytest.raises(OptionError, match="Delete it, or give another file"):
            CausalStore(path, {"seeds": [1, 2]})


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "late"},
        {"layers": ["lat"]},
        {"quantiles": [1.0]},
        {"quantiles": []},
        {"quantiles": [0.9, 0.99, 0.9]},
        {"layers": [[1], [1]]},
        {"controls": ["random", "random"]},
        {"seeds": [-1]},
        {"seeds": [1, 1]},
        {"action": "add"},
        {"factor": 1},
        {"action": "clamp", "factor": 0.5},
        {"temperature": -1},
        {"max_tokens": 1},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Before a model is loaded."""
    with pytest.raises(OptionError, match="Use"):
        CausalCheck(**options)


def test_a_seed_counts_once() -> None:
    """The same answers would pass for others, in each of the probes."""
    check_seeds([1, 0])
    with pytest.raises(OptionError, match="`seeds=.* is not allowed. Use each seed once"):
        check_seeds((1, 0, 1))


def test_problems_are_asked_with_reasoning_and_without(tmp_path: Path) -> None:
    """By another prompt, or, of Abacus, by another template; answers are read as the task reads them."""
    path = tmp_path / "problems.jsonl"
    lines = [
        {"question": "6 times 7?", "answer": "6 * 7 = <<6*7=42>>42\n#### 42"},
        {"question": "Half of {3000}?", "answer": "#### 1,500"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = read_problems(str(path), 2)
    reasoned, direct = (first.asked({"seed": 1}, is_direct=is_direct) for is_direct in (False, True))
    assert "step by step" in reasoned.messages[0]["content"]
    assert "without any reasoning" in direct.messages[0]["content"]
    assert "Half of {3000}?" in second.asked({}, is_direct=True).messages[0]["content"]
    assert reasoned.settings == direct.settings == {"seed": 1}
    assert first.is_right("7 + 35 is 42, so \\boxed{42.0}")
    assert not first.is_right("\\boxed{43}")
    assert second.is_right("It is \\boxed{1500}.")
    bundled = read_problems("abacus", 1)[0]
    assert bundled.asked({}).messages == bundled.asked({}, is_direct=True).messages
    assert bundled.asked({}, is_direct=True).settings == {"enable_thinking": False}


def test_too_few_problems_are_refused(tmp_path: Path) -> None:
    """With how many there are."""
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "a", "answer": "b"}')
    with pytest.raises(OptionError, match="has 1 problems, and 2 were asked for"):
        read_problems(str(path), 2)
