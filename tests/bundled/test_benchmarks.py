"""What benchmarks compute in their own way is what the library computes."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import langnorm.abacus
from benchmarks import (
    adaptive,
    evidence,
    llamacpp,
    packing,
    real_interventions,
    real_sae_summary,
    real_selection,
    real_steps,
    samples,
)
from benchmarks.documents import between
from benchmarks.real_decoder import Decoder
from benchmarks.real_samples import sample
from langnorm import ChatLangNorm, NormSelector, Selection
from langnorm.evaluation import evaluate
from langnorm.evaluation.methods import drawn_ranking, own_method
from langnorm.evaluation.tasks import Item, Task
from langnorm.scores.samples import Sample
from langnorm.selection.ranking import Candidate
from langnorm.selection.stopping import STOP_RULES
from langnorm.testing import ScriptedEngine
from tests.support.selections import ranking

ROOT = Path(__file__).parents[2]
PARTS_OF_THE_EVIDENCE = ("real", "real_steps", "real_interventions", "real_causal", "real_signal", "real_sae")


def test_the_plain_decoder_gives_what_the_engine_gives() -> None:
    """Token by token the same answers; norms and probabilities differ by rounding only."""
    assert samples.check(samples.Decoder(langnorm.abacus.path()), num_problems=2) < 1e-4


@pytest.mark.parametrize(
    ("measuring", "page"),
    [(packing, "models"), (llamacpp, "models"), (adaptive, "selection")],
    ids=lambda value: str(value),
)
def test_published_tables_are_what_was_measured(tmp_path: Path, measuring: ModuleType, page: str) -> None:
    """Published anew from the stored measurement, the documentation stays as it is."""
    published = ROOT / "docs" / f"{page}.md"
    other = tmp_path / published.name
    other.write_text(published.read_text(encoding="utf-8"), encoding="utf-8")
    stored = measuring.__name__.rpartition(".")[2] + ".json"
    measured = json.loads((ROOT / "benchmarks" / "results" / stored).read_text(encoding="utf-8"))

    measuring.publish(measured, other)

    assert other.read_text(encoding="utf-8") == published.read_text(encoding="utf-8")


def test_published_figures_of_real_models_are_those_that_are_stored() -> None:
    """In all documents."""
    found = sorted((ROOT / "benchmarks" / "results").glob("real-*.json"))
    assert found
    for stored in found:
        figures = json.loads(stored.read_text(encoding="utf-8"))
        for file in (ROOT / "README.md", ROOT / "docs" / "selection.md"):
            assert between(file, stored.stem) == real_selection.summary(figures)
        assert between(ROOT / "benchmarks" / "README.md", stored.stem) == real_selection.report(figures)


def test_the_default_selection_is_what_the_measurements_chose() -> None:
    """On the problems to choose on of all models together."""
    assert real_selection.default_method() == real_selection.choose(real_selection.stored_figures())


def test_published_figures_of_steps_are_those_that_are_stored() -> None:
    """In all documents."""
    found = sorted((ROOT / "benchmarks" / "results").glob("real_steps-*.json"))
    assert found
    for stored in found:
        figures = json.loads(stored.read_text(encoding="utf-8"))
        for file in (ROOT / "README.md", ROOT / "docs" / "messages.md"):
            assert between(file, stored.stem) == real_steps.summary(figures)
        assert between(ROOT / "benchmarks" / "README.md", stored.stem) == real_steps.table(figures)


def test_the_page_of_evidence_is_what_was_measured() -> None:
    """Every part of it, from the stored results."""
    parts = evidence.parts()
    assert {name.partition("-")[0] for name in parts} == set(PARTS_OF_THE_EVIDENCE)
    for mark, text in parts.items():
        assert between(evidence.PAGE, mark) == text


def test_what_the_command_says_of_saes_is_said_with_or_without_reasoning_features() -> None:
    """Of the deepest late layer, with how it was trained; where no layer has such features, the table says so."""
    found = json.loads((evidence.RESULTS / "real_sae-abacus.json").read_text())
    assert "autoencoder of the states after layer 10" in real_sae_summary.summary(found)
    for row in found["layers"]:
        row.pop("reasoning", None)
        row["on_the_same_tokens"].pop("reasoning", None)
    found["over_layers"] = {"raw": None, "in_units_of_the_layer": None}
    found["num_tokens"] = {"reasoned": 10, "direct": 9}
    text = real_sae_summary.summary(found)
    assert "features, none of which is a reasoning one, have a rank correlation" in text
    assert text.endswith("| – | – | – |")
    assert "Over layers" not in text
    assert "Asked to answer at once this model does not" in text


def test_what_an_evaluation_kept_becomes_a_part_of_the_evidence(tmp_path: Path) -> None:
    """Right, cut off, tokens and states acted on of each method; an evaluation that is not finished is refused."""
    task = Task("task", (Item("6 * 7?", "42"), Item("1 + 1?", "2")), answer="number")
    engine = ScriptedEngine(["It is 42.", "It is 3.", "It is 41.", "It is 2.", "It is 42.", "It is 2."])
    chat = ChatLangNorm(engine=engine, temperature=0, max_batch_size=1)  # or the answers come in any order
    evaluate(chat, task, ["recursion", own_method('hot={"top_k": 3}')], folder=tmp_path, show_progress=False)
    found = real_interventions.collected(task, tmp_path)
    assert {name: method["right"] for name, method in found["methods"].items()} == {
        "baseline": "10",
        "recursion": "01",
        "hot": "11",
    }
    assert found["methods"]["recursion"]["cut"] == []
    text = real_interventions.summary({"model": "scripted", **found})
    assert "| recursion | 50.0 % (0.0 to 100.0) | +0.0 (-100.0 to +100.0) | 1 |" in text
    assert "- `recursion`: no difference is shown" in text
    assert "| hot | 100.0 % (100.0 to 100.0) | +50.0 (+0.0 to +100.0) |" in text
    assert "| top_k=3 |" in text
    with pytest.raises(ValueError, match="no answer to 1 questions, such as number 2"):
        real_interventions.collected(replace(task, items=(*task.items, Item("0?", "0"))), tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So 4 × 7 = 26 apples, and 26 - 6 = 20.", [False, True]),
        ("\\( 3 \\times 12 = 36 \\) and \\[ \\frac{10}{4} = 2.5 \\]", [True, True]),
        ("$1,200 + $300 = $1500; 10 / 3 = 3.33; 10 / 3 = 3", [True, True, True]),
        ("(2+3)*4 = 20.", [True]),
        ("x = 4 + 5; 2 + 3 = 5 + 1; 2 * 50 = 100%; 3 * 4 = 12x; the year 1990 = good", []),
        ("7 * 8 = 56 * 2 = 112", [True]),
        ("2 * (3 = 6; 5 / 0 = 0", []),
    ],
)
def test_equations_of_numbers_are_checked(text: str, expected: list[bool]) -> None:
    """To the digits that are given; what is no equation of numbers alone is left aside."""
    assert real_steps.are_right(text) == expected


def test_the_decoder_of_real_models_gives_what_a_forward_pass_gives() -> None:
    """Norms, distributions, means and chains of a Qwen2 model of random weights, also after others have ended."""
    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    drawn = sample(
        Decoder(model), prompts, 6, end_ids=[*range(40, 50)], temperature=1.0, seed=1, max_tokens=40, lens_layers=(1,)
    )

    assert len({*drawn.lengths.tolist()}) > 4  # some are dropped on the way
    for number, length in enumerate(drawn.lengths.tolist()):
        prompt, ids = prompts[number // 6], drawn.ids[number, :length].tolist()
        assert all(token < 40 for token in ids[:-1])
        with torch.inference_mode():
            expected = expected_values(model, prompt, ids)
        found = (drawn.values[number, :length], drawn.lens[number, :length, 0], drawn.norms[number, : length - 1])
        for array, of_expected in zip(found, expected[:3], strict=True):
            np.testing.assert_allclose(array, of_expected, rtol=3e-3, atol=3e-3)
        if length > 1:
            np.testing.assert_allclose(drawn.means[number], expected[3], rtol=3e-3, atol=3e-3)


def expected_values(model: Qwen2ForCausalLM, prompt: list[int], ids: list[int]) -> list[np.ndarray]:
    """Return distributions, lens divergence, norms and means of an answer from one plain forward pass in float64."""
    model = copy.deepcopy(model).double()
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda _module, _inputs, output: states.append(output[0] if isinstance(output, tuple) else output)
        )
        for layer in model.model.layers
    ]
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0]
    for hook in hooks:
        hook.remove()
    first, last = len(prompt), len(prompt) + len(ids)
    logprobs = logits.log_softmax(-1)[first - 1 : last - 1]
    top = logprobs.sort(descending=True).values
    values = [
        logprobs[range(len(ids)), ids],
        -(logprobs.exp() * logprobs).sum(-1),
        -math.log(logprobs.size(1)) - logprobs.mean(-1),
        top[:, :5].mean(-1),
        top[:, :20].mean(-1),
        top[:, :5].exp().sum(-1),
    ]
    lens = model.lm_head(model.model.norm(states[1][0, first - 1 : last - 1])).softmax(-1)
    middle = (lens + logprobs.exp()) / 2
    divergence = (
        (lens * (lens / middle).log2()).sum(-1) + (logprobs.exp() * (logprobs.exp() / middle).log2()).sum(-1)
    ) / 2
    whole = torch.stack([model.model.embed_tokens(torch.tensor([[*prompt, *ids]])), *states])[:, 0]  # (N + 1, T, d)
    new = whole[:, first : last - 1]
    norms = new[1:].norm(dim=-1)
    cosine = torch.nn.functional.cosine_similarity
    updates = (new[1:] - new[:-1]).norm(dim=-1) / new[:-1].norm(dim=-1)
    between_tokens = cosine(new[1:, 1:], new[1:, :-1], -1)
    turned = torch.cat([torch.ones(len(norms), 1), between_tokens], 1)
    means = torch.stack([part.mean(-1) for part in (norms, updates, cosine(new[1:], new[:-1], -1), turned)])
    return [torch.stack(values, -1).numpy(), divergence.numpy(), norms.T.numpy(), means.numpy()]


@pytest.mark.parametrize("stop", STOP_RULES)
def test_stored_samples_are_drawn_as_a_selector_draws(stop: Any) -> None:
    """As many of them, by the same rule."""
    answers = ["4", "5", "4", "4", "4", "4", "5", "4", "4", "4", "4", "5"]
    selection = Selection(n=12, score="mean_logprob", stop=stop, window=2, stop_above=None)
    engine = ScriptedEngine([f"The answer is {answer}." for answer in answers])
    message = NormSelector(ChatLangNorm(engine=engine, temperature=1), selection=selection).invoke("?")
    candidates = [Candidate(Sample((), (), logprobs=[-1.0]), answer, 1, "stop") for answer in answers]
    found = drawn_ranking(selection, candidates)
    assert len(found.candidates) == ranking(message)["drawn"] < 12
    assert found.candidates[found.best].answer == "4"
