"""The oracle of the interventions is itself checked, where the outcome is known without it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import langnorm.abacus
from tests.reference.interventions import Decoder, Recursion, generate
from tests.reference.norms import reference_norms
from tests.support.calls import PROMPTS, plain_tokens
from tests.support.models import tiny_model

MODELS = ("qwen3", "llama", "mistral", "gemma2", "olmo2", "abacus")
NUM_TOKENS = 12
# Longer than the sliding window of the tiny Mistral and Gemma 2.
PROMPT = [3 + token % 297 for token in PROMPTS[2]]


def model_without_end(name: str) -> PreTrainedModel:
    """Returns a model of its own for a test, of which no answer ends early."""
    model = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path()) if name == "abacus" else tiny_model(name)
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize("name", MODELS)
def test_without_interventions_is_plain_decoding(name) -> None:
    """With nothing to do, the tokens are those of `model.generate` and the norms those of the definition."""
    model = model_without_end(name)

    outcome = generate(model, PROMPT, NUM_TOKENS)

    assert outcome.tokens == plain_tokens(model, PROMPT, max_new_tokens=NUM_TOKENS)
    layers = range(model.config.num_hidden_layers)
    expected = reference_norms(model, [*PROMPT, *outcome.tokens], layers, len(PROMPT))
    assert expected.shape == (NUM_TOKENS - 1, len(layers))
    torch.testing.assert_close(torch.tensor(outcome.norms, dtype=torch.float64), expected, rtol=1e-4, atol=0)
    assert (outcome.recursion, outcome.injections, outcome.suppressed) == ({}, [], {})


@pytest.mark.parametrize(
    ("trigger", "steering", "steps"),
    [
        ("slack", {"low_k": 0, "p_inject": 1.0, "cooldown": 4}, range(0, NUM_TOKENS - 1, 4)),
        ("peak", {"cos_min": -1.0}, range(1, NUM_TOKENS - 1)),  # all but the first, before which there is none
    ],
    ids=["slack", "peak"],
)
@pytest.mark.parametrize("name", MODELS)
def test_interventions_of_no_strength_change_nothing(name, trigger, steering, steps) -> None:
    """With alpha and beta 0 and factor 1 everything is done and counted, and the answer is the plain one."""
    model = model_without_end(name)
    plain = generate(model, PROMPT, NUM_TOKENS)
    low = dict.fromkeys(range(2), 1e-9)

    outcome = generate(
        model,
        PROMPT,
        NUM_TOKENS,
        recursion={"thresholds": low, "alpha": 0.0, "max_extra": 2, "growth_eps": -1.0, "blowup": 1e30},
        steering={"thresholds": low, "trigger": trigger, "beta": 0.0} | steering,
        suppression={"thresholds": low, "factor": 1.0},
        draws=lambda *_: 0.5,
    )

    assert outcome.tokens == plain.tokens
    torch.testing.assert_close(torch.tensor(outcome.norms), torch.tensor(plain.norms), rtol=1e-6, atol=0)
    num_run = NUM_TOKENS - 1
    assert outcome.suppressed == dict.fromkeys(low, num_run)
    assert [(step, layer) for step, layer, _ in outcome.injections] == [
        (step, layer) for step in steps for layer in low
    ]
    for counts in outcome.recursion.values():
        assert (counts["tokens"], counts["triggered"]) == (num_run, num_run)
        assert counts["passes"] == counts["accepted"] == 2 * num_run


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_extra_pass_of_own_input_is_pass_0(name, block) -> None:
    """The input of pass 0, run as an extra pass, comes out as it did then: position, window and keys are the same."""
    decoder = Decoder(model_without_end(name))
    inputs = [decoder.embed(PROMPT)]
    for layer in range(decoder.num_layers):
        inputs.append(decoder.run(layer, inputs[layer]))

    for layer in range(block - 1, decoder.num_layers):
        again = Recursion({}, block=block).extra_pass(decoder, inputs, layer, inputs[layer - block + 1][-1])

        torch.testing.assert_close(again, inputs[layer + 1][-1], rtol=1e-4, atol=1e-4)
