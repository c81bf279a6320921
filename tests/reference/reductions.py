"""What is kept of tokens besides norms, as the definitions read: plain passes without a cache, in float64.

Independent of langnorm on purpose: what it reduces while decoding is compared with this.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

_FINAL_NORMS = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}
"""Path of the norm after the last decoder layer by model type; `model.norm` in the other families."""


def distribution_of(logits: Sequence[float], token: int) -> dict[str, float]:
    """Returns what is kept of one distribution, from the logits of all tokens and the token that was taken."""
    highest = max(logits)
    total = math.fsum(math.exp(value - highest) for value in logits)
    logprobs = [value - highest - math.log(total) for value in logits]
    ordered = sorted(logprobs, reverse=True)
    uniform = 1 / len(logits)
    return {
        "entropy": -math.fsum(math.exp(value) * value for value in logprobs),
        "self_certainty": math.fsum(uniform * (math.log(uniform) - value) for value in logprobs),
        "top5_logprob": math.fsum(ordered[:5]) / len(ordered[:5]),
        "top20_logprob": math.fsum(ordered[:20]) / len(ordered[:20]),
        "top5_mass": math.fsum(math.exp(value) for value in ordered[:5]),
        "logprob": logprobs[token],
    }


def exact_twin(model: PreTrainedModel) -> PreTrainedModel:
    """Returns a copy that computes in float64, or in float32 where torch has no such product for experts."""
    twin = copy.deepcopy(model)
    return twin if model.config.model_type == "mixtral" else twin.double()


@torch.no_grad()
def reference_distributions(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> list[dict]:
    """Returns what is kept of the distribution of each generated token, by one plain pass in float64."""
    logits = exact_twin(model)(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0].double()
    rows = logits[len(prompt) - 1 : -1].tolist()
    return [distribution_of(row, token) for row, token in zip(rows, tokens, strict=True)]


@torch.no_grad()
def reference_states(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """Returns what enters the first layer and what each layer puts out, for every token: (positions, N + 1, d)."""
    # A copy, because asking for hidden states leaves transformers' own hooks on the layers for good.
    model = exact_twin(model)
    # Without the final norm, the last entry of `hidden_states` is the last layer's output.
    model.set_submodule(_FINAL_NORMS.get(model.config.model_type, "model.norm"), torch.nn.Identity())
    outputs: Any = model(torch.tensor([list(ids)]), use_cache=False, output_hidden_states=True, return_dict=True)
    return torch.stack([states[0] for states in outputs.hidden_states], dim=1).double()


def updates_of(states: torch.Tensor, layers: Sequence[int], num_prompt: int) -> dict[str, list[list[float]]]:
    """Returns what is kept of the updates of layers, at each generated token that was run.

    Args:
        states: Of all tokens but the last, as `reference_states` returns them.
        layers: The layers.
        num_prompt: How many of the tokens are the prompt.
    """
    found: dict[str, list[list[float]]] = {
        name: [] for name in ("norms", "previous_norms", "layer_cosines", "token_cosines")
    }
    for position in range(num_prompt, len(states)):
        now = [states[position, layer + 1].tolist() for layer in layers]
        before = [states[position, layer].tolist() for layer in layers]
        earlier = [states[position - 1, layer + 1].tolist() for layer in layers]
        found["norms"].append([math.dist(h, g) for h, g in zip(now, before, strict=True)])
        found["previous_norms"].append([math.hypot(*g) for g in before])
        found["layer_cosines"].append([cosine(h, g) for h, g in zip(now, before, strict=True)])
        found["token_cosines"].append([cosine(h, g) for h, g in zip(now, earlier, strict=True)])
    return found


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns the cosine of the angle between two vectors."""
    lengths = math.hypot(*first) * math.hypot(*second)
    return math.fsum(x * y for x, y in zip(first, second, strict=True)) / lengths


@torch.no_grad()
def reference_lens(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> list[list[list[float]]]:
    """Returns the probabilities (T, N, V) that states lead to after each layer, of each generated token, in float64."""
    outputs: Any = exact_twin(model)(torch.tensor([[*prompt, *tokens]]), use_cache=False)
    states = reference_states(model, [*prompt, *tokens])[len(prompt) - 1 : -1, 1:]  # (T, N, d)
    found = probabilities_of(model, states)
    expected = outputs.logits[0, len(prompt) - 1 : -1].double().softmax(dim=-1)
    assert torch.allclose(found[:, -1], expected, atol=1e-6)
    return found.tolist()


@torch.no_grad()
def probabilities_of(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """Returns what states (T, N, d) after decoder layers lead to, as probabilities (T, N, V)."""
    twin = exact_twin(model)
    norm = twin.get_submodule(_FINAL_NORMS.get(model.config.model_type, "model.norm"))
    logits = twin.get_output_embeddings()(norm(states.to(twin.dtype))).double()
    if model.config.model_type == "cohere":
        logits = logits * model.config.logit_scale
    if model.config.model_type == "granite":
        logits = logits / model.config.logits_scaling
    cap = model.config.final_logit_softcapping if model.config.model_type == "gemma2" else None
    return (cap * torch.tanh(logits / cap) if cap else logits).softmax(dim=-1)


def divergence_of(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns the Jensen-Shannon divergence of two lists of probabilities, in bits."""
    middle = [(p + q) / 2 for p, q in zip(first, second, strict=True)]
    halves = [
        math.fsum(p * math.log2(p / m) for p, m in zip(side, middle, strict=True) if p > 0) for side in (first, second)
    ]
    return sum(halves) / 2


def lens_of(probabilities: Sequence[Sequence[Sequence[float]]], layers: Sequence[int]) -> dict[str, list[float]]:
    """Returns settling and agreement of each token, given the probabilities (T, N, V) after all N layers."""
    found: dict[str, list[float]] = {"settling": [], "agreement": []}
    for of_layers in probabilities:
        final = list(of_layers[-1])
        distances = [divergence_of(of_layers[layer], final) for layer in layers]
        settled = [k for k in range(len(layers)) if all(distance <= 0.5 for distance in distances[k:])]
        found["settling"].append((layers[settled[0]] + 1) / len(of_layers) if settled else 1.0)
        likeliest = final.index(max(final))
        agreeing = [layer for layer in layers if of_layers[layer].index(max(of_layers[layer])) == likeliest]
        found["agreement"].append(len(agreeing) / len(layers))
    return found
