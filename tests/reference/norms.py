"""The norms as their definition reads: one plain forward pass, no cache, no hooks of ours, float64.

Independent of langnorm on purpose: what it records while decoding is compared with this.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

_FINAL_NORMS = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}
"""Path of the norm after the last decoder layer by model type; `model.norm` in the other families."""


@torch.no_grad()
def reference_norms(
    model: PreTrainedModel, input_ids: list[int], layers: Sequence[int], num_prompt: int
) -> torch.Tensor:
    """Returns `||h_t^l||_2` for every generated token that was run through the model.

    Args:
        model: A model of one of the families of `tests.support.models`. It is left as it is.
        input_ids: The prompt followed by its T generated tokens.
        layers: 0-based indices of the layers, the columns of the result.
        num_prompt: How many of `input_ids` are the prompt.

    Returns:
        Norms `(T - 1, len(layers))` in float64: row i belongs to generated token i. The last token is
        never run while decoding and has no row.
    """
    # A copy, because asking for hidden states leaves transformers' own hooks on the layers for good.
    model = copy.deepcopy(model)
    # The last entry of `hidden_states` is taken after the final norm: without that norm, it is the last
    # layer's output.
    model.set_submodule(_FINAL_NORMS.get(model.config.model_type, "model.norm"), torch.nn.Identity())
    outputs = model(
        torch.tensor([input_ids], device=model.device),
        use_cache=False,
        output_hidden_states=True,
        return_dict=True,
    )
    # Entry 0 is the embedding, entry l + 1 the residual stream after layer l.
    states = torch.stack([outputs.hidden_states[layer + 1][0] for layer in layers], dim=1)  # (position, L, hidden)
    return states[num_prompt : len(input_ids) - 1].double().square().sum(dim=-1).sqrt()
