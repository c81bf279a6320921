"""A pretrained model of 4-bit weights, on llama.cpp and on transformers.

llama.cpp rounds the states that are multiplied with such weights to 8 bits; transformers does not. `LLAMACPP_MODEL`
names another model of `benchmarks/real_models.py` than the smallest one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_models import FetchError, fetch
from langnorm import ChatLangNorm, NormProfile, NormTrace
from langnorm.engines.options import Sampling
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Completion, Record, Request

QUESTIONS = (
    "What is the capital of France?",
    "Name a color.",
    "What is 2 + 2?",
    "Say hello.",
    "What is the opposite of hot?",
    "How many legs does a dog have?",
    "Write a haiku about rain.",
)
MODEL = os.environ.get("LLAMACPP_MODEL", "smollm2")
NEAR_TIE = 0.3
"""Nats between the two likeliest tokens, below which the rounding may decide."""

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def path() -> Path:
    """Returns the GGUF file of the model; the tests are skipped with the reason where it cannot be fetched."""
    try:
        return fetch(MODEL)
    except FetchError as error:
        pytest.skip(f"{MODEL} could not be fetched: {error}")


def answers(path: Path, engine: str) -> list[Completion]:
    """Returns greedy answers to the questions, with norms of all layers and tokens."""
    runs = get_engine(engine, path, {"gguf_cache": False})
    requests = []
    for question in QUESTIONS:
        turns = [{"role": "user", "content": question}]
        prompt = runs.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        record = Record(layers=tuple(range(runs.num_layers)), prompt=True)
        requests.append(Request(tuple(prompt), Sampling(max_tokens=16), record, top_logprobs=2))
    return [response.completions[0] for response in runs.generate(requests)]


def test_answers_and_norms_are_those_of_transformers(path) -> None:
    """Tokens are equal up to a near-tie, if there is one, and up to there norms differ by less than 1 %."""
    num_equal = 0
    for ours, theirs in zip(answers(path, "llamacpp"), answers(path, "transformers"), strict=True):
        pairs = enumerate(zip(ours.token_ids, theirs.token_ids, strict=False))
        parted = next((i for i, (one, other) in pairs if one != other), None)
        num_equal += parted is None
        for completion in (ours, theirs) if parted is not None else ():
            (_, first), (_, second) = completion.logprobs[parted].top
            assert first - second < NEAR_TIE
        norms = np.array([*ours.prompt_norms, *ours.norms[:parted]])
        right = np.array([*theirs.prompt_norms, *theirs.norms[:parted]])
        assert np.mean(np.abs(norms - right) / right) < 0.01
    assert num_equal >= len(QUESTIONS) / 2


def test_a_profile_is_tied_to_the_file(path, tmp_path) -> None:
    """It is of this file on llama.cpp, and gives intensities; with transformers the norms are others."""
    chat = ChatLangNorm(model=path, engine="llamacpp", temperature=0, max_tokens=20)
    profile = NormProfile.calibrate(chat, QUESTIONS)
    profile.save(tmp_path / "profile.json")
    message = chat.bind(profile=tmp_path / "profile.json").invoke(QUESTIONS[0])
    assert message.response_metadata["engine"] == "llamacpp"
    assert NormTrace.from_message(message).steps[0].intensity is not None
    assert profile.identity == get_engine("llamacpp", path, {}).identity
    assert profile.identity != get_engine("transformers", path, {"gguf_cache": False}).identity
