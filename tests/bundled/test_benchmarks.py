"""What benchmarks compute in their own way is what the library computes."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import langnorm.abacus
from benchmarks import adaptive, llamacpp, packing, samples
from langnorm import ChatLangNorm, NormSelector, Selection
from langnorm.scores.samples import Sample
from langnorm.selection.ranking import Candidate
from langnorm.selection.stopping import STOP_RULES
from langnorm.testing import ScriptedEngine
from tests.support.selections import ranking

ROOT = Path(__file__).parents[2]


def test_the_plain_decoder_gives_what_the_engine_gives() -> None:
    """Token by token the same answers; norms and probabilities differ by rounding only."""
    assert samples.check(samples.Decoder(langnorm.abacus.path()), num_problems=2) < 1e-4


@pytest.mark.parametrize("measuring", [packing, llamacpp, adaptive], ids=["packing", "llamacpp", "adaptive"])
def test_published_tables_are_what_was_measured(tmp_path: Path, measuring: ModuleType) -> None:
    """Published anew from the stored measurement, the README stays as it is."""
    readme = ROOT / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")
    stored = measuring.__name__.rpartition(".")[2] + ".json"
    measured = json.loads((ROOT / "benchmarks" / "results" / stored).read_text(encoding="utf-8"))

    measuring.publish(measured, copy)

    assert copy.read_text(encoding="utf-8") == readme.read_text(encoding="utf-8")


@pytest.mark.parametrize("stop", STOP_RULES)
def test_stored_samples_are_drawn_as_a_selector_draws(stop: Any) -> None:
    """As many of them, by the same rule."""
    answers = ["4", "5", "4", "4", "4", "4", "5", "4", "4", "4", "4", "5"]
    selection = Selection(n=12, score="mean_logprob", stop=stop, window=2, stop_above=None)
    engine = ScriptedEngine([f"The answer is {answer}." for answer in answers])
    message = NormSelector(ChatLangNorm(engine=engine, temperature=1), selection=selection).invoke("?")
    candidates = [Candidate(Sample((), (), logprobs=[-1.0]), answer, 1, "stop") for answer in answers]
    found = adaptive.drawn_ranking(selection, candidates)
    assert len(found.candidates) == ranking(message)["drawn"] < 12
    assert found.candidates[found.best].answer == "4"
