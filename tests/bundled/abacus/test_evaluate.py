"""What the model card measures, on the bundled model."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoTokenizer

import langnorm.abacus
from langnorm.abacus.evaluate import measure


def test_a_line_is_measured_on_held_out_problems() -> None:
    """Greedy lines give an accuracy, the sampled one the mean number of distinct answers too."""
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    model = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path())
    assert measure(model, tokenizer, "tools_known", 8, "dev")["tools_known"] > 0.5
    assert measure(model, tokenizer, "easy_greedy", 8, "dev")["easy_greedy"] > 0.5
    sampled = measure(model, tokenizer, "hard_sampled", 1, "dev")
    assert 1 <= sampled["hard_distinct"] <= 8
