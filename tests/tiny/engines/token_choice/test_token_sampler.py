"""Scores are warped as `generate` of transformers warps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.token_choice.token_sampler import build_warpers
from tests.support.calls import PROMPTS

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

SETTINGS = (
    {"temperature": 0.3},
    {"temperature": 1.0},
    {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 6},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.5, "min_p": 0.2},
    {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
)


def warpers_of(options: dict[str, float]) -> LogitsProcessorList:
    """Returns what warps the scores of a sequence with these options."""
    sampling = Sampling(**options)
    return build_warpers(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_warping_equals_that_of_generate(options, model_of) -> None:
    """Scores are warped as `model.generate` of transformers warps them when it samples itself."""
    ids = torch.tensor([PROMPTS[0]])
    fields = {"top_k": 0, "top_p": 1.0} | options
    output = model_of("llama").generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        max_new_tokens=4,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **fields,
    )

    for logits, scores in zip(output.logits, output.scores, strict=True):
        torch.testing.assert_close(warpers_of(options)(ids, logits), scores, rtol=1e-6, atol=1e-6)
