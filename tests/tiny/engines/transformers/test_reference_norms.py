"""The oracle of the norms is itself checked, against layers run one by one."""

from __future__ import annotations

import pytest
import torch

from tests.reference.norms import reference_norms
from tests.support.models import FAMILIES, NUM_LAYERS, tiny_model

INPUT_IDS = [5, 17, 40, 8, 99, 250, 31, 77, 120, 64, 201, 13]
NUM_PROMPT = 4


def causal_mask(num_tokens: int) -> torch.Tensor:
    """Returns an additive mask that hides later positions."""
    return torch.full((1, 1, num_tokens, num_tokens), float("-inf")).triu(1)


def llama_states(model: torch.nn.Module, input_ids: list[int]) -> list[torch.Tensor]:
    """Returns the residual stream `(position, hidden)` after each layer, from a loop over the layers."""
    position_ids = torch.arange(len(input_ids))[None]
    states = model.model.embed_tokens(torch.tensor([input_ids]))
    rotary = model.model.rotary_emb(states, position_ids)
    after = []
    for layer in model.model.layers:
        states = layer(
            states,
            attention_mask=causal_mask(len(input_ids)),
            position_ids=position_ids,
            position_embeddings=rotary,
        )
        after.append(states[0])
    return after


def gpt2_states(model: torch.nn.Module, input_ids: list[int]) -> list[torch.Tensor]:
    """Returns the residual stream `(position, hidden)` after each block, from a loop over the blocks."""
    states = model.transformer.wte(torch.tensor([input_ids])) + model.transformer.wpe(torch.arange(len(input_ids)))
    after = []
    for block in model.transformer.h:
        states = block(states, attention_mask=causal_mask(len(input_ids)))
        after.append(states[0])
    return after


@pytest.mark.parametrize(("family", "run_layers"), [("llama", llama_states), ("gpt2", gpt2_states)])
@torch.no_grad()
def test_oracle_agrees_with_layers_run_by_hand(family, run_layers) -> None:
    """The norms are those of a manual loop over the layers, for the last layer too."""
    model = tiny_model(family)
    expected = torch.stack([states.double().norm(dim=-1) for states in run_layers(model, INPUT_IDS)], dim=1)

    norms = reference_norms(model, INPUT_IDS, range(NUM_LAYERS), NUM_PROMPT)

    assert norms.dtype == torch.float64
    torch.testing.assert_close(norms, expected[NUM_PROMPT:-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_row_ignores_later_tokens(family) -> None:
    """A row depends on its own token and those before it, so the last token changes none."""
    model = tiny_model(family)
    norms = reference_norms(model, INPUT_IDS, range(NUM_LAYERS), NUM_PROMPT)
    changed = reference_norms(model, [*INPUT_IDS[:-1], 200], range(NUM_LAYERS), NUM_PROMPT)

    assert norms.shape == (len(INPUT_IDS) - NUM_PROMPT - 1, NUM_LAYERS)
    torch.testing.assert_close(norms, changed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_reads_last_layer_before_final_norm(family) -> None:
    """The last layer's norms vary over tokens, while those after a final norm are nearly constant."""
    norms = reference_norms(tiny_model(family), INPUT_IDS, [NUM_LAYERS - 1], NUM_PROMPT)

    assert norms.std() / norms.mean() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_leaves_model_as_it_was(family) -> None:
    """The model keeps its final norm, its logits, and has no hook afterwards."""
    model = tiny_model(family)
    with torch.no_grad():
        before = model(torch.tensor([INPUT_IDS])).logits

    reference_norms(model, INPUT_IDS, [0, NUM_LAYERS - 1], NUM_PROMPT)

    with torch.no_grad():
        assert torch.equal(model(torch.tensor([INPUT_IDS])).logits, before)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_model_is_reproducible_and_does_not_collapse(family) -> None:
    """Equal arguments give equal weights, and greedy decoding does not settle on one token."""
    model, twin, other = tiny_model(family), tiny_model(family), tiny_model(family, seed=1)
    prompt = torch.tensor([[5, 6, 7]])
    answer = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=24, max_new_tokens=24
    )[0, 3:]

    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert not model.training
    assert len(set(answer.tolist())) >= 6


def test_tiny_model_takes_configuration_and_dtype() -> None:
    """Overrides reach the configuration, the weights have the dtype, and the random state is untouched."""
    state = torch.random.get_rng_state()
    model = tiny_model("gemma3", num_hidden_layers=9, dtype=torch.bfloat16)

    assert len(model.model.layers) == 9
    assert model.dtype == torch.bfloat16
    assert torch.equal(torch.random.get_rng_state(), state)
