"""Measure Abacus on held-out problems and write its model card: `python -m langnorm.abacus.evaluate`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import langnorm.abacus
from langnorm.abacus.generator import arithmetic, chat, corpus, tools
from langnorm.abacus.generator.base import Example, Split
from langnorm.abacus.tokenizer import render
from langnorm.selection.statements import stated_number

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUM_SAMPLES = 8
TEMPERATURE = 0.7
_MAX_NEW_TOKENS = 700  # the longest working in training has about 550
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"

_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


def final_number(text: str) -> str | None:
    """Return the number that is stated after the reasoning, in plain digits, or None."""
    return stated_number(text.rpartition("</think>")[2])


def tool_calls(text: str) -> list[Any] | None:
    """Return the calls in the text, or None when one of them is not JSON."""
    try:
        return [json.loads(call) for call in _TOOL_CALL.findall(text)]
    except json.JSONDecodeError:
        return None


def is_right(example: Example, text: str) -> bool:
    """Return whether `text` answers the example: the same number, or exactly the same tool calls."""
    if example.skill == "arithmetic":
        return final_number(text) == example.answer
    if "tool_calls" in example.messages[-1]:
        return bool(tool_calls(text) == json.loads(example.answer or ""))
    return text.rpartition("</think>")[2].strip() == example.answer


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    num_samples: int = 1,
    temperature: float = 0.0,
    batch_size: int = 64,
) -> list[list[str]]:
    """Return `num_samples` completions of each example's prompt, markup kept, control tokens dropped."""
    import torch
    from tqdm import tqdm

    torch.manual_seed(0)
    prompts = [render(tokenizer, example)[0] for example in examples]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    completions: list[list[str]] = [[] for _ in examples]
    size = max(1, batch_size // num_samples)
    options: dict[str, Any] = {"do_sample": False}
    if temperature:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    for start in tqdm(range(0, len(order), size), unit="batch", leave=False):
        chosen = order[start : start + size]
        inputs = tokenizer.pad({"input_ids": [prompts[i] for i in chosen]}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(  # type: ignore[operator]
                **inputs, max_new_tokens=_MAX_NEW_TOKENS, num_return_sequences=num_samples, **options
            )
        texts = tokenizer.batch_decode(output[:, inputs["input_ids"].size(1) :], skip_special_tokens=True)
        for place, i in enumerate(chosen):
            completions[i] = texts[place * num_samples : (place + 1) * num_samples]
    return completions


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, line: str, num_problems: int, split: Split
) -> dict[str, float]:
    """Return the figures of one line of the model card, over `num_problems` held-out problems."""
    if line == "hard_sampled":
        hard = list(corpus.held_out(_HARD, num_problems, split))
        samples = complete(model, tokenizer, hard, num_samples=NUM_SAMPLES, temperature=TEMPERATURE)
        return {
            "hard_sampled": _mean(is_right(e, t) for e, texts in zip(hard, samples, strict=True) for t in texts),
            "hard_distinct": _mean(len(set(texts)) for texts in samples),
        }
    examples = list(corpus.held_out(_GREEDY[line], num_problems, split))
    replies = complete(model, tokenizer, examples)
    return {line: _mean(is_right(e, texts[0]) for e, texts in zip(examples, replies, strict=True))}


def _calls(rng: Any, split: Split, names: Any, *, enable_thinking: bool) -> Example:
    """Return an example whose reply is one or several tool calls."""
    while True:
        example = tools.draw(rng, split, names=names)
        if "tool_calls" in example.messages[-1] and example.enable_thinking is enable_thinking:
            return example


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


_HARD = partial(arithmetic.draw, level="hard", enable_thinking=True)
_GREEDY: dict[str, Any] = {
    "easy_greedy": partial(arithmetic.draw, level="easy", enable_thinking=True),
    "easy_direct_greedy": partial(arithmetic.draw, level="easy", enable_thinking=False),
    "hard_greedy": _HARD,
    "tools_known": partial(_calls, names="known", enable_thinking=True),
    "tools_unseen": partial(_calls, names="random", enable_thinking=True),
    "tools_known_direct": partial(_calls, names="known", enable_thinking=False),
    "tools_unseen_direct": partial(_calls, names="random", enable_thinking=False),
    "chat_greedy": chat.draw,
}

_LINES = {
    "easy_greedy": "1 to 3 steps, thinking, greedy: accuracy",
    "easy_direct_greedy": "1 to 3 steps, answered directly, greedy: accuracy",
    "hard_greedy": "4 to 12 steps, thinking, greedy: accuracy",
    "hard_sampled": f"4 to 12 steps, thinking, temperature {TEMPERATURE}: accuracy of one sample",
    "hard_distinct": f"4 to 12 steps, temperature {TEMPERATURE}: distinct responses of {NUM_SAMPLES}",
    "tools_known": "tool calls, thinking, names seen in training, greedy: exact match",
    "tools_unseen": "tool calls, thinking, names never seen in training, greedy: exact match",
    "tools_known_direct": "tool calls, called directly, names seen in training, greedy: exact match",
    "tools_unseen_direct": "tool calls, called directly, names never seen in training, greedy: exact match",
    "chat_greedy": "chat without tools, thinking or not, greedy: exact match",
}


def table(figures: dict[str, float]) -> str:
    """Return the figures as a Markdown table."""
    lines = [f"| {text} | {figures[key]:.3f} |" for key, text in _LINES.items() if key in figures]
    return "\n".join(["| measured | figure |", "|---|---|", *lines])


def write_card(card: Path, figures: dict[str, float]) -> None:
    """Replace the results of the model card."""
    head, _, rest = card.read_text().partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    card.write_text(f"{head}{_BEGIN}\n{table(figures)}\n{_END}{tail}")


def main() -> None:
    """Print the figures; with `--write`, put them into the model card and beside it as JSON."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=langnorm.abacus.path())
    parser.add_argument("--num-problems", type=int, default=300)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--only", choices=(*_GREEDY, "hard_sampled"), action="append", help="measure these lines")
    parser.add_argument("--write", action="store_true", help="keep the figures, and write the model card with them")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    results, card = arguments.model / "results.json", arguments.model / "README.md"
    for line in arguments.only or (*_GREEDY, "hard_sampled"):
        figures = measure(model, tokenizer, line, arguments.num_problems, arguments.split)
        print(table(figures), flush=True)
        if arguments.write:
            earlier = json.loads(results.read_text()) if results.exists() else {}
            results.write_text(json.dumps(earlier | figures, indent=2) + "\n")
            write_card(card, earlier | figures)


if __name__ == "__main__":
    main()
