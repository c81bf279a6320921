"""Retries follow a checked escalation and come out differently than the attempts before them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from langnorm import ChatLangNorm, NormRetry
from langnorm.errors import OptionError
from langnorm.retry.escalation import DEFAULT_ESCALATION, resolve_change, resolve_escalation, settings_for
from langnorm.testing import ScriptedEngine


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """Abacus, sampled."""
    return ChatLangNorm(engine=abacus_engine, temperature=0.8)


@pytest.fixture(scope="module")
def greedy(abacus_engine: Any) -> ChatLangNorm:
    """Abacus, greedy."""
    return ChatLangNorm(engine=abacus_engine, temperature=0)


def settings(llm: Any, number: int, escalation: Any = DEFAULT_ESCALATION, **call: Any) -> dict[str, Any]:
    """Returns the settings of a retry."""
    return resolve_change(resolve_escalation(escalation), number, llm, call).settings


def test_names_are_short_for_settings() -> None:
    """A single step may stand alone, and a checked escalation is one again."""
    steps = resolve_escalation(["resample", "recursion", "steering", {"max_tokens": 5}])
    assert steps == ({}, {"recursion": {}}, {"steering": {}}, {"max_tokens": 5})
    assert resolve_escalation(steps) == steps
    assert resolve_escalation("recursion") == resolve_escalation({"recursion": {}}) == ({"recursion": {}},)


@pytest.mark.parametrize(
    ("escalation", "message"),
    [
        ([], "at least one step"),
        (None, "at least one step"),
        (["recursoin"], "Did you mean `recursion`"),
        ([3], "the step `3`"),
        ([["resample"]], "A step is"),
        ([{"recursoin": {}}], "`escalation` has no option `recursoin`. Did you mean `recursion`"),
        ([{"recursion": {"max_extr": 1}}], "Did you mean `max_extra`"),
        ([{"temperature": -1}], "`temperature=-1` is not allowed"),
        ([{"model": ""}], "`model=''` is not allowed"),
        ([{"tools": []}], "no option `tools`"),
        ([lambda: None], "A step is"),
        ([ChatLangNorm().bind(temperature=1)], "A step is"),
    ],
)
def test_wrong_escalations_are_refused(escalation, message) -> None:
    """Before anything is computed, with what would be right."""
    with pytest.raises(OptionError, match=message):
        resolve_escalation(escalation)


@pytest.mark.transformers_engine
def test_the_last_step_serves_all_further_retries(chat) -> None:
    """Retry k uses step k while there is one."""
    found = [settings(chat, number) for number in (1, 2, 3, 4)]
    assert [set(one) - {"seed"} for one in found] == [set(), {"recursion"}, {"steering"}, {"steering"}]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda retry: pickle.loads(pickle.dumps(retry))])
def test_a_named_step_draws_again_where_an_engine_is_not_able_to_do_it(copied) -> None:
    """So do the steps of a copy; what is written out is left for the engine to refuse."""

    class PlainEngine(ScriptedEngine):
        abilities = frozenset[str]()

    plain = ChatLangNorm(engine=PlainEngine("One."), temperature=1)
    retry = copied(NormRetry(ChatLangNorm(), escalation=["recursion", {"recursion": {}}]))
    assert [set(settings(plain, number, retry.escalation)) for number in (1, 2)] == [{"seed"}, {"seed", "recursion"}]


def test_a_change_of_a_step_is_nobody_elses() -> None:
    """Named steps are short for settings of their own."""
    one, other = (resolve_escalation("recursion") for _ in range(2))
    one[0]["recursion"]["max_extra"] = 3  # type: ignore[index]
    assert other == resolve_escalation("recursion") == ({"recursion": {}},)


def test_the_model_that_a_step_names_may_be_the_greedy_one() -> None:
    """It is that one whose answer would be repeated."""

    class Named(ChatLangNorm):
        def is_sampling(self) -> bool:
            return self.model == "sampling"

    step = {"model": "greedy"}
    assert [settings(Named(model="sampling"), number, step).get("temperature") for number in (1, 2)] == [None, 0.7]
    assert "temperature" not in settings(Named(model="greedy"), 2, {"model": "sampling"})


def test_fixed_seeds_are_counted_up(chat) -> None:
    """Of the constructor, a binding, the call and the step, the last one counts."""
    seeded = chat.model_copy(update={"seed": 10})
    assert settings(seeded, 2)["seed"] == 12
    assert settings(seeded.bind(seed=20), 2)["seed"] == 22
    assert settings(seeded.bind(seed=20), 2, seed=30)["seed"] == 32
    assert settings(seeded, 2, {"seed": 40}, seed=30)["seed"] == 42


def test_free_seeds_are_random(chat) -> None:
    """None takes back a fixed one."""
    free = [settings(chat.bind(seed=1), 1, seed=None)["seed"], *(settings(chat, 1)["seed"] for _ in range(3))]
    assert len(set(free)) == 4


def test_greedy_retries_that_would_repeat_are_sampled(chat, greedy) -> None:
    """What changes the answer by itself stays greedy, the first time."""
    found = [
        settings(greedy, number, ["recursion", {"max_tokens": 9}, {"enable_thinking": False}]) for number in range(1, 5)
    ]
    assert [one.get("temperature") for one in found] == [0.7, 0.7, None, 0.7]
    assert "temperature" not in settings(chat, 1)
    assert settings(chat, 1, temperature=0)["temperature"] == 0.7
    assert settings(chat.bind(temperature=0), 1)["temperature"] == 0.7
    assert "temperature" not in settings(greedy, 1, temperature=0.5)
    assert settings(greedy, 1, {"temperature": 0.2})["temperature"] == 0.2


def test_another_model_is_called_instead(chat, greedy) -> None:
    """One of ours with a seed, one of others as it is; the record names it."""
    other = FakeListChatModel(responses=["x"])
    foreign, ours = resolve_change((other,), 1, chat, {}), resolve_change((greedy,), 1, chat, {"seed": 3})
    assert (foreign.model, foreign.settings, foreign.to_dict()) == (other, {}, {"model": other})
    assert (ours.model, ours.settings) == (greedy, {"seed": 4})
    assert resolve_change((greedy,), 2, chat, {}).settings["temperature"] == 0.7


def test_settings_are_settings_for_as_far_as_they_are_understood(chat) -> None:
    """Models of other packages get what all of them know, and no model the name of another."""
    given = {"model": "x", "temperature": 1.0, "recursion": {}, "stop": ["a"]}
    assert settings_for(chat, given) == {"temperature": 1.0, "recursion": {}, "stop": ["a"]}
    assert settings_for(FakeListChatModel(responses=[]), given) == {"temperature": 1.0, "stop": ["a"]}
