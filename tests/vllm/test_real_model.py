"""A pretrained model, as people have them: vLLM answers as transformers does, with norms and interventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.real_models import FOLDER, FetchError, fetch
from langnorm import unload
from langnorm.engines.options import Sampling
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Record, Request
from langnorm.engines.transformers.gguf import CACHE_VARIABLE
from tests.support.calls import answers
from tests.support.interventions import PEAK_STEERING, RECURSIONS, SUPPRESSIONS, request_of, thresholds
from tests.vllm.conftest import SMALL, chat_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langnorm.engines.transformers.engine import TransformersEngine
    from langnorm.engines.vllm.engine import VllmEngine

pytestmark = pytest.mark.timeout(600)

QUESTIONS = ("What is the capital of France?", "Write a haiku about rain.")
ACTED_ON = (20, 26)
"""Late layers of thirty."""


@pytest.fixture(scope="module")
def plain() -> Iterator[TransformersEngine]:
    """Returns SmolLM2-135M-Instruct on transformers; the test is skipped with the reason where it cannot be fetched."""
    try:
        path = fetch("smollm2")
    except FetchError as error:
        pytest.skip(f"it could not be fetched: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(FOLDER / "unpacked"))
        yield get_engine("transformers", path, {})
    unload()


@pytest.fixture(scope="module")
def engine(plain, tmp_path_factory) -> VllmEngine:
    """Returns the same weights on vLLM."""
    folder = tmp_path_factory.mktemp("smollm2")
    plain.model.save_pretrained(folder)
    plain.tokenizer.save_pretrained(folder)
    return get_engine("vllm", folder, {}, SMALL)


def test_answers_norms_and_interventions_are_those_of_transformers(engine, plain) -> None:
    """Of a batch in which each sequence has its own: tokens, norms, and how many states were acted on."""
    prompts = [chat_ids(plain, question) for question in QUESTIONS]
    every = Record(layers=tuple(range(plain.num_layers)), prompt=True)
    requests = [Request(prompt, Sampling(max_tokens=24), every) for prompt in prompts]
    requests += [
        request_of(prompt, thresholds(plain, prompt, ACTED_ON), option, layers=ACTED_ON)
        for prompt in prompts
        for option in (RECURSIONS["paper"], PEAK_STEERING, SUPPRESSIONS["high"])
    ]
    for request, found, right in zip(requests, answers(engine, requests), answers(plain, requests), strict=True):
        assert found.token_ids == right.token_ids
        for name in ("norms", "prompt_norms"):
            rows, expected = torch.tensor(getattr(found, name)), torch.tensor(getattr(right, name))
            torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-3)
        for plan in request.plans.all():
            assert _states(found.interventions[plan.options.name]) == _states(right.interventions[plan.options.name])


def _states(report: dict[str, Any]) -> list[tuple[int, int]]:
    """Returns the states that were acted on, of which there are some, as token and layer."""
    if pulls := report.get("injections"):
        return [(pull["token"], pull["layer"]) for pull in pulls]
    states = [(token, int(layer)) for layer, tokens in report["acted_on"].items() for token in tokens]
    assert states
    return states
