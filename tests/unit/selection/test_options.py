"""Options are checked when they are made, before any model is touched."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from langchain_core.output_parsers import JsonOutputParser

from langnorm.checks import build_options
from langnorm.engines.options import Sampling
from langnorm.errors import OptionError
from langnorm.scores.registry import SCORES
from langnorm.scores.samples import Sample
from langnorm.scores.score import Score
from langnorm.selection.options import Selection
from langnorm.selection.pruning import Pruning


def test_defaults_are_greedy() -> None:
    """A sampling without arguments takes the most likely token and stops nowhere by itself."""
    sampling = Sampling()
    assert (sampling.temperature, sampling.n, sampling.max_tokens, sampling.stop) == (0.0, 1, None, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", True),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 2.5),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("max_tokens", 0),
        ("seed", "1"),
        ("n", 0),
        ("stop", 3),
        ("stop", ["a", ""]),
    ],
)
def test_values_outside_the_allowed_are_refused(name: str, value: object) -> None:
    """The error shows what was given and says what to use."""
    with pytest.raises(OptionError, match=rf"`{name}=.*` is not allowed\. Use ") as caught:
        Sampling(**{name: value})  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


def test_stop_takes_a_text_or_a_list() -> None:
    """One text and a list of one text mean the same."""
    assert Sampling(stop="END").stop == Sampling(stop=["END"]).stop == ("END",)  # type: ignore[arg-type]


def num_rows(sample: Sample) -> int:
    """A score of the user's."""
    return len(sample.norms)


def test_the_defaults_of_a_selection() -> None:
    """They are those of the documentation: eight responses, the best by the default score, nothing stopped early."""
    assert Selection().to_dict() == {
        "n": 8,
        "score": {"numeral_entropy": 1.0, "deepconf_tail": 0.5},
        "combine": "scores",
        "vote": "none",
        "answer": "auto",
        "keep": 0.5,
        "near": 0.8,
        "prune": None,
        "stop": None,
    }


def test_the_default_reads_what_there_is() -> None:
    """A score that was named stays."""
    assert Selection().without_distributions() == Selection(score="numeral_logprob")
    assert Selection(score="mean").without_distributions() == Selection(score="mean")
    assert Selection(score=None).without_distributions() == Selection(score=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("n", value) for value in (0, -1, 2.0, True, "8", None)],
        *[("vote", value) for value in ("most", "", None, [])],
        *[("answer", value) for value in ("numbers", "", None, 3, [])],
        *[("keep", value) for value in (0, 0.0, -0.5, 1.1, float("nan"), True, "0.5", None)],
        *[("near", value) for value in (-0.1, float("nan"), float("inf"), True, "0.1", None)],
        *[("prune", value) for value in (3, True, ["halving"])],
    ],
)
def test_selections_that_are_not_allowed_are_refused(name: str, value: Any) -> None:
    """The error shows what was given and says what to use."""
    with pytest.raises(OptionError, match=rf"`{name}=.*` is not allowed\. Use ") as caught:
        Selection(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "late-rate"}, "Did you mean `late_rate`?"),
        ({"score": 3}, "There is no score `3`"),
        ({"score": {}}, "names no score"),
        ({"score": {"mean": 1.0, "rte": 1.0}}, "Did you mean `rate`?"),
        ({"score": {"mean": float("nan")}}, "`mean=nan` of `score`"),
        ({"vote": "majorty"}, 'Use "none", "majority", "weighted" or "filtered". Did you mean `majority`?'),
        ({"answer": "numbers"}, "Did you mean `number`?"),
        ({"answer": JsonOutputParser}, "Give an instance"),
        ({"prune": "halvng"}, "`rule='halvng'` of `prune` .*Did you mean `halving`?"),
        ({"prune": {"role": "halving"}}, "`prune` has no option `role`. Did you mean `rule`?"),
        ({"prune": {"every": 0}}, "`every=0` of `prune`"),
        ({"prune": "halving", "score": None}, "Name a score, or leave `prune` out"),
    ],
)
def test_errors_of_selections_have_hints(options: dict[str, Any], message: str) -> None:
    """With the closest name where there is one."""
    with pytest.raises(OptionError, match=message.replace("?", r"\?")):
        Selection(**options)


@pytest.mark.parametrize(
    ("prune", "pruning"),
    [
        (None, None),
        ("threshold", Pruning(rule="threshold")),
        ({"rule": "threshold", "every": 8}, Pruning(rule="threshold", every=8)),
        ({}, Pruning()),
        (Pruning(least=3), Pruning(least=3)),
    ],
)
def test_prune_takes_a_name_a_dict_or_options(prune: Any, pruning: Pruning | None) -> None:
    """They become options."""
    assert Selection(prune=prune).prune == pruning


def test_edges_of_what_is_allowed_are_taken() -> None:
    """Whole numbers are numbers too."""
    assert Selection(n=1, keep=1, near=0).keep == 1
    assert Selection(keep=1e-9, near=1e9).near == 1e9


def test_dicts_are_options() -> None:
    """None stays None; unknown fields get a hint or a list, and fields of other kinds are refused."""
    assert build_options(Selection, "selection", {"n": 4, "vote": "majority"}) == Selection(n=4, vote="majority")
    assert build_options(Selection, "selection", {}) == Selection()
    assert build_options(Selection, "selection", None) is None
    chosen = Selection(n=2)
    assert build_options(Selection, "selection", chosen) is chosen
    with pytest.raises(OptionError, match=r"`selection` has no option `scores`. Did you mean `score`\?"):
        build_options(Selection, "selection", {"scores": "mean"})
    with pytest.raises(OptionError, match="`selection` has no option `3`. Use `n`, `score`, "):
        build_options(Selection, "selection", {3: "mean"})
    for value in ("majority", 8, True, [("n", 8)]):
        with pytest.raises(OptionError, match=r"Use Selection\(...\), a dict of its fields, or None"):
            build_options(Selection, "selection", value)


@pytest.mark.parametrize(
    ("score", "stored"),
    [
        (None, None),
        ("A", "sum"),
        (SCORES["rate"], "rate"),
        (num_rows, "num_rows"),
        ({"mean": 1, "D": -0.5}, {"mean": 1.0, "late": -0.5}),
        ({"mean": 2}, {"mean": 2.0}),
    ],
)
def test_the_dict_of_a_selection_is_plain_json(score: Any, stored: Any) -> None:
    """Functions are there by their names, and so are parsers and rules."""
    options = {"answer": num_rows} if score is None else {"answer": JsonOutputParser(), "prune": "halving"}
    found = Selection(score=score, **options).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["score"] == stored
    assert found["answer"] == ("num_rows" if score is None else "JsonOutputParser")
    rule = {"rule": "halving", "every": 64, "least": 2, "first": 3, "quantile": 0.25}
    assert found["prune"] == (None if score is None else rule)


@pytest.mark.parametrize(
    ("score", "needs"),
    [
        (None, (False, False, False)),
        ("mean", (True, False, False)),
        ("late_rate", (True, True, False)),
        ("mean_logprob", (False, False, True)),
        ("quiet_logprob", (True, False, True)),
        ({"numeral_logprob": 1, "rate": 1}, (True, True, True)),
        (num_rows, (True, False, True)),
        (Score(name="own", function=num_rows), (True, False, True)),
        (Score(name="own", function=num_rows, needs_norms=False, needs_logprobs=True), (False, False, True)),
        (copy.deepcopy(SCORES["mean_logprob"]), (False, False, True)),
    ],
)
def test_selections_say_what_they_need(score: Any, needs: tuple[bool, bool, bool]) -> None:
    """Norms, thresholds, log-probabilities; a function of the user's may read norms and log-probabilities."""
    selection = Selection(score=score)
    assert (selection.needs_norms, selection.needs_thresholds, selection.needs_logprobs) == needs
