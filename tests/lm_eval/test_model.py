"""What langnorm's model does that the harness' own do not: interventions, selection, seeds, and refusals."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage

from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import OptionError, PromptError
from tests.lm_eval.conftest import requests

QUESTIONS = ("Calculate 47 + 385.", "Start with 47. Add 38. Multiply by 3. What is it?", "Tom has 8 bags of 6 apples.")
SAMPLED = {"until": [], "max_gen_toks": 96, "do_sample": True, "temperature": 1.2}


def ask(model, gen_kwargs, questions=QUESTIONS) -> list[str]:
    """Returns the answers to some questions."""
    chats = [model.apply_chat_template([{"role": "user", "content": question}]) for question in questions]
    return model.generate_until(requests(*((chat, gen_kwargs) for chat in chats)), disable_tqdm=True)


def test_interventions_are_those_of_the_chat_model(model_with, ours) -> None:
    """The same answers as those of `ChatLangNorm`, and the results say how often they acted."""
    from langnorm import ChatLangNorm

    options = {"layers": [9, 10], "factor": 0.1, "threshold": 1.0}
    model = model_with(**{f"suppression.{name}": value for name, value in options.items()})
    found = ask(model, {"until": [], "max_gen_toks": 24})
    assert found != ask(ours, {"until": [], "max_gen_toks": 24})

    chat = ChatLangNorm(temperature=0, max_tokens=24, suppression=options)
    replies = chat.batch(list(QUESTIONS))
    for text, reply in zip(found, replies, strict=True):
        assert str(reply.content).strip() in text
        assert reply.additional_kwargs.get("reasoning_content", "") in text
    counts = model.get_model_info()["langnorm"]["interventions"]["suppression"]
    num_actions = sum(sum(r.response_metadata["langnorm"]["suppression"]["suppressed"].values()) for r in replies)
    assert counts["answers"] == counts["answers_acted_on"] == len(QUESTIONS)
    assert counts["actions"] == num_actions > 0
    assert counts["tokens"] == sum(reply.usage_metadata["output_tokens"] for reply in replies)


@pytest.mark.parametrize(
    "options", [{"recursion.threshold": 1.0, "recursion.growth_eps": -1.0}, {"steering.threshold": 1.0}]
)
def test_other_interventions_are_counted(options, model_with) -> None:
    """By their name."""
    model = model_with(**options)
    ask(model, {"until": [], "max_gen_toks": 24})
    (name,) = {option.split(".")[0] for option in options}
    assert model.get_model_info()["langnorm"]["interventions"][name]["answers"] == len(QUESTIONS)


def test_a_selection_returns_the_best_of_its_samples(model_with) -> None:
    """That of the highest mean log-probability, among the samples that the chat model draws with the same seed."""
    from langnorm import ChatLangNorm
    from langnorm_lm_eval.generation import Seeds

    model = model_with(seed=3, **{"selection.n": 3, "selection.score": "mean_logprob"})
    question = QUESTIONS[1]
    (found,) = ask(model, SAMPLED, [question])
    seed = Seeds(3).next(model.apply_chat_template([{"role": "user", "content": question}]))
    chat = ChatLangNorm(temperature=SAMPLED["temperature"], max_tokens=SAMPLED["max_gen_toks"], seed=seed)
    (samples,) = chat.generate([[HumanMessage(question)]], n=3, logprobs=True).generations
    contents = {}
    for sample in samples:
        logprobs = [token["logprob"] for token in sample.message.response_metadata["logprobs"]["content"]]
        contents[sum(logprobs) / len(logprobs)] = sample.message.content
    assert len(set(contents.values())) > 1
    assert found.endswith(contents[max(contents)])


def test_a_selection_among_equal_answers_is_refused(model_with) -> None:
    """Greedy ones: it is said how to sample."""
    with pytest.raises(OptionError, match="Add `--gen_kwargs do_sample=true,temperature=0.7`"):
        ask(model_with(**{"selection.n": 3}), {"until": []})


def test_sampled_answers_depend_on_their_text_and_the_seed_alone(model_with) -> None:
    """Not on what else is asked; the same text asked again has another answer."""
    model = model_with(seed=3)
    found = ask(model, SAMPLED)
    assert ask(model_with(seed=3, batch_size=1), SAMPLED, QUESTIONS[1:]) == found[1:]
    assert ask(model_with(seed=4), SAMPLED) != found
    one, other = ask(model, SAMPLED, QUESTIONS[:1] * 2)
    assert one == found[0] != other


def test_the_harness_seed_is_taken(ours) -> None:
    """The one that it gives to torch."""
    import torch

    torch.manual_seed(11)
    found = ask(ours, SAMPLED)
    torch.manual_seed(12)
    other = ask(ours, SAMPLED)
    torch.manual_seed(11)
    assert ask(ours, SAMPLED) == found != other


def test_reasoning_is_cut_from_the_answer(model_with, ours) -> None:
    """Where thinking is asked for; stop texts then count in the answer alone."""
    whole = ask(ours, {"until": [], "max_gen_toks": 96})
    assert "<think>" in whole[0]
    found = ask(model_with(enable_thinking=True), {"until": ["+", "."], "max_gen_toks": 96})
    assert found == [text.split("</think>")[1].strip().split("+")[0].split(".")[0] for text in whole]


@pytest.mark.parametrize("option", ["recursion", "steering", "suppression", "selection", "enable_thinking"])
def test_given_texts_are_not_scored_with_what_has_no_effect_on_them(option, model_with) -> None:
    """Their figures would be those of the plain model."""
    model = model_with(**{option: True})
    for score in (model.loglikelihood, model.loglikelihood_rolling):
        with pytest.raises(OptionError, match=f"`{option}` has no effect"):
            score(requests(("a", "b")), disable_tqdm=True)


@pytest.mark.parametrize(
    ("gen_kwargs", "error"),
    [
        ({"num_beams": 4}, "cannot generate with `num_beams=4`"),
        ({"until": [3]}, "`until=.3.` is not allowed"),
        ({"max_gen_toks": 4000}, "leaves no room for a prompt"),
        ({"do_sample": True, "top_p": 7}, "`top_p=7` is not allowed"),
    ],
)
def test_what_cannot_be_generated_is_refused(gen_kwargs, error, ours) -> None:
    """Before the first answer."""
    with pytest.raises(OptionError, match=error):
        ask(ours, gen_kwargs)


def test_texts_are_cut_to_what_the_engine_scores(model_with, monkeypatch) -> None:
    """Which may be less than its context; an engine without a limit scores whatever fits into that."""
    text, pairs = [("one two three four five six",)], [("a b c d e f g", "one two three"), ("a", "two")]

    def scored(model) -> list:
        return [
            *model.loglikelihood_rolling(requests(*text), disable_tqdm=True),
            *model.loglikelihood(requests(*pairs), disable_tqdm=True),
        ]

    model = model_with(max_length=9)
    whole, cut = scored(model), scored(model_with(max_length=7))
    monkeypatch.setattr(TransformersEngine, "scored_length", 7)
    assert scored(model) == cut != whole
    monkeypatch.setattr(TransformersEngine, "scored_length", None)
    assert scored(model) == whole


def test_what_cannot_be_scored_is_refused(model_with) -> None:
    """A continuation longer than the context, and a context longer than the model's."""
    model = model_with(max_length=8)
    with pytest.raises(PromptError, match="has room for 8"):
        model.loglikelihood(requests(("a", "one two three four five six seven eight")), disable_tqdm=True)
    with pytest.raises(OptionError, match="more than this model's context"):
        model_with(max_length=10**6)


def test_a_task_that_samples_gets_the_temperature_of_the_model() -> None:
    """Where it names none, and 1 where the model's own choice is greedy."""
    from langnorm_lm_eval.generation import read_gen_kwargs
    from langnorm_lm_eval.options import HarnessOptions

    for defaults, expected in (({"temperature": 0.6}, 0.6), ({}, 1.0)):
        assert read_gen_kwargs({"do_sample": True}, HarnessOptions(), defaults).settings["temperature"] == expected
    greedy = read_gen_kwargs({"top_p": 0.0, "use_cache": True}, HarnessOptions(), {})
    assert greedy.settings == {"max_tokens": 256, "temperature": 0.0, "stop": ()}
