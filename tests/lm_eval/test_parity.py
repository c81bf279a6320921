"""With everything off, langnorm's model says what the harness' own model of transformers says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lm_eval.conftest import requests

CONTEXTS = (
    "Mia has 12 boxes with 14 pens each. How many pens does Mia have?",
    "The capital of France is",
    "Q: 47 + 385?\nA: ",
    "Once upon a time, there was a little dog. " * 4,
)
SHORT_CONTEXT = 96
CONTINUATIONS = (" Paris", "168", " the answer is 5.\n", "\n\n")


@pytest.fixture(params=[False, True], ids=["whole context", "short context"])
def pair(request, hf, ours, model_with, monkeypatch) -> tuple[Any, Any]:
    """Returns the harness' model and ours, as they are or with less context than some of the texts need."""
    if not request.param:
        return hf, ours
    monkeypatch.setattr(hf, "_max_length", SHORT_CONTEXT)
    return hf, model_with(max_length=SHORT_CONTEXT)


def chats(hf) -> list[str]:
    """Returns the contexts as questions of a conversation."""
    return [hf.apply_chat_template([{"role": "user", "content": context}]) for context in CONTEXTS]


def test_tokens_and_limits_are_the_same(hf, ours) -> None:
    """What stands before a text, what ends it, how long it may be, and how a conversation is written."""
    for name in ("prefix_token_id", "eot_token_id", "max_length", "max_gen_toks", "tokenizer_name"):
        assert getattr(ours, name) == getattr(hf, name)
    beginning = ours.tokenizer.decode(ours.prefix_token_id)
    for text in (*CONTEXTS, "", beginning + "two", *chats(hf)):
        for special in (None, True, False):
            assert ours.tok_encode(text, add_special_tokens=special) == hf.tok_encode(text, add_special_tokens=special)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    unfinished = [*turns, {"role": "assistant", "content": "It is"}]
    assert ours.apply_chat_template(turns) == hf.apply_chat_template(turns)
    assert ours.apply_chat_template(unfinished, add_generation_prompt=False) == hf.apply_chat_template(
        unfinished, add_generation_prompt=False
    )


def test_log_likelihoods_are_the_same(pair) -> None:
    """Of continuations in padded batches, after nothing, and after more than the context holds."""
    hf, ours = pair
    pairs = [(context, continuation) for context in CONTEXTS for continuation in CONTINUATIONS]
    asked = requests(*pairs, ("", "Hello world 12"))
    expected = hf.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked, disable_tqdm=True)
    assert [logprob for logprob, _ in found] == pytest.approx([logprob for logprob, _ in expected], abs=1e-4)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]


def test_what_a_model_says_by_itself_is_greedy(ours) -> None:
    """A greedy answer's own text is scored as such, and another one is not."""
    prompt = ours.apply_chat_template([{"role": "user", "content": "Calculate 47 + 385."}])
    (answer,) = ours.generate_until(requests((prompt, {"until": [], "max_gen_toks": 6})), disable_tqdm=True)
    (_, is_greedy), (_, is_other_greedy) = ours.loglikelihood(requests((prompt, answer), (prompt, "No.")), True)
    assert is_greedy
    assert not is_other_greedy


def test_rolling_log_likelihoods_are_the_same(pair) -> None:
    """Of texts in one window or in several, and of none."""
    hf, ours = pair
    asked = requests(*((text,) for text in (*CONTEXTS, "")))
    expected = hf.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asked, disable_tqdm=True) == pytest.approx(expected, abs=1e-4)


def test_answers_are_the_same(pair) -> None:
    """In batches, with stop texts of several kinds, to cut prompts, and cut at a number of tokens."""
    hf, ours = pair
    kinds = [
        {"until": ["\n\n", "Question:", "</s>"], "max_gen_toks": 48, "do_sample": False},
        {"until": ["."], "max_gen_toks": 24, "temperature": 0.0},
        {"until": "is", "max_gen_toks": 24},
        {"until": ["</think>"], "max_gen_toks": 48},
        {"max_gen_toks": 5},
    ]
    asked = requests(*((context, kind) for kind in kinds for context in (*CONTEXTS, *chats(hf))))
    expected = hf.generate_until(asked, disable_tqdm=True)
    assert len({text for text in expected if text}) > 8
    assert ours.generate_until(asked, disable_tqdm=True) == expected


@pytest.mark.parametrize("end", ["</think>", "id"])
def test_reasoning_is_cut_at_the_same_place(end, hf, model_with, abacus_folder, monkeypatch) -> None:
    """At the text of a token, or at its id."""
    if end == "id":
        end, *more = hf.tokenizer.encode("</think>", add_special_tokens=False)
        if more:
            pytest.skip("this model has no token for the end of reasoning")
    monkeypatch.setattr(hf, "think_end_token", end)
    asked = requests(*((chat, {"until": [], "max_gen_toks": 60}) for chat in chats(hf)))
    expected = hf.generate_until(asked, disable_tqdm=True)
    assert model_with(think_end_token=end).generate_until(asked, disable_tqdm=True) == expected


@pytest.mark.parametrize("is_chat", [False, True])
def test_tasks_have_the_same_results(is_chat, hf, ours, evaluate) -> None:
    """A task of each kind, run by the harness: the same answers and figures."""
    tasks = ("langnorm_sums", "langnorm_choices", "langnorm_texts")
    options = {"apply_chat_template": is_chat, "log_samples": True}
    expected, found = (evaluate(model, *tasks, **options) for model in (hf, ours))
    for task in tasks:
        for name, value in expected["results"][task].items():
            assert found["results"][task][name] == pytest.approx(value, abs=1e-4, nan_ok=True), name
        for one, other in zip(found["samples"][task], expected["samples"][task], strict=True):
            assert one["doc"] == other["doc"]
            assert flat(one["filtered_resps"]) == [
                pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
                for value in flat(other["filtered_resps"])
            ]


def flat(values) -> list:
    """Returns what nested lists hold."""
    return [leaf for value in values for leaf in (flat(value) if isinstance(value, list | tuple) else [value])]
