"""The tokens of the bundled model are those of `model.generate`."""

from __future__ import annotations

from transformers import AutoModelForCausalLM

import langnorm.abacus
from tests.support.calls import ask, plain_tokens, tokens


def test_greedy_tokens_of_abacus_equal_generate(abacus_engine, tokenizer) -> None:
    """The bundled model says through langnorm what it says through transformers, with norms and without."""
    model = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path())
    texts = ("What is 47 + 385?", "Hello!")
    prompts = [tokenizer(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"] for text in texts]
    expected = [plain_tokens(model, prompt, max_new_tokens=30) for prompt in prompts]

    for layers in ((), (8, 9, 10)):
        assert tokens(abacus_engine, [ask(prompt, layers=layers, max_tokens=30) for prompt in prompts]) == expected
