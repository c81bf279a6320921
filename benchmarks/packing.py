"""How fast a CPU decodes with weights in bfloat16, 8 and 4 bits, and what the rounding costs in accuracy.

    python -m benchmarks.packing --model MODEL
    python -m benchmarks.packing --model MODEL --batches 1,2 --repeats 3 --threads 2

The forms take turns in one process, each with its own copy of the model. Accuracy is read by teacher forcing: the model
in bfloat16 answers, and each form reads these answers. It tells how often the form's likeliest token is the one of
bfloat16, how far the log-probability of the answers moves, and how far the norms of the late layers move.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.documents import put
from benchmarks.setups import PACKAGES, discard
from benchmarks.timing import Timing, machine, measure, results_file, write_json
from langnorm.abacus.prompts import prompts
from langnorm.engines.registry import get_engine
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.packed_weights import FORMS
from langnorm.norms.layers import select_layers

BASE = "bfloat16"
NUM_TOKENS = 33  # the first comes from the prompt's pass: what is counted is the 32 decode steps
BATCHES = (1, 2, 4, 8)
MARK = "speed of packed weights"


def load(model: str, form: str) -> TransformersEngine:
    """Return an engine of its own for a form of the weights."""
    given = {"dtype": "bfloat16"} | ({} if form == BASE else {"packed_weights": form})
    engine = get_engine("transformers", model, given)
    assert isinstance(engine, TransformersEngine)
    return engine


def decode(engine: TransformersEngine, ids: Tensor, num_tokens: int) -> Tensor:
    """Return what follows on prompts (B, T) of one length: exactly so many tokens (B, num_tokens), greedily."""
    output: Any = engine.model.generate(  # type: ignore[operator]
        ids, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False, pad_token_id=0
    )
    return output[:, ids.size(1) :]  # type: ignore[no-any-return]


def time_forms(engines: dict[str, TransformersEngine], batch_size: int, repeats: int) -> dict[str, list[float]]:
    """Return seconds per decode step of each form, one per round; the prompt's pass is taken off."""
    seconds: dict[str, list[float]] = {form: [] for form in engines}
    ids = torch.full((batch_size, 16), 100)
    for number in range(repeats + 1):
        for form in list(engines)[:: 1 if number % 2 else -1]:
            engine = engines[form]

            def run(num_tokens: int, engine: TransformersEngine = engine) -> Timing:
                return measure(engine.model, lambda: discard(decode(engine, ids, num_tokens)))

            taken = run(NUM_TOKENS).wall - run(1).wall
            if number:  # the first round warms up
                seconds[form].append(taken / (NUM_TOKENS - 1))
    return seconds


@torch.inference_mode()
def read(engine: TransformersEngine, text: Tensor, num_prompt_tokens: int) -> tuple[Tensor, Tensor, float]:
    """Return the likeliest tokens (T,) of an answer, norms (T, L) of late layers, and its mean log-probability."""
    output = engine.model(text[None], output_hidden_states=True)
    log_probs = output.logits[0, num_prompt_tokens - 1 : -1].float().log_softmax(dim=-1)
    answer = text[num_prompt_tokens:]
    layers = select_layers("late", engine.num_layers)
    # Entry 0 is the embedding; that of the last layer has gone through the final norm, so it is left out.
    states = [
        output.hidden_states[layer + 1][0, num_prompt_tokens:] for layer in layers if layer + 1 < engine.num_layers
    ]
    norms = torch.stack([state.float().norm(dim=-1) for state in states], dim=-1)
    return log_probs.argmax(dim=-1), norms, float(log_probs.gather(1, answer[:, None]).mean())


def compare(engines: dict[str, TransformersEngine], num_prompts: int, num_tokens: int) -> dict[str, dict[str, float]]:
    """Return what each form makes of the answers of the first."""
    rows: dict[str, list[tuple[float, float, float]]] = {form: [] for form in engines}
    tokenizer = engines[BASE].tokenizer
    for messages in prompts(num_prompts, seed=1):
        prompt = torch.tensor(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        with torch.inference_mode():
            output: Any = engines[BASE].model.generate(prompt[None], max_new_tokens=num_tokens, do_sample=False)  # type: ignore[operator]
        tokens, norms, log_prob = read(engines[BASE], output[0], len(prompt))
        for form, engine in engines.items():
            other_tokens, other_norms, other_log_prob = read(engine, output[0], len(prompt))
            same = (other_tokens == tokens).float().mean().item()
            moved = ((other_norms - norms).abs() / norms).median().item()
            rows[form].append((same, moved, other_log_prob - log_prob))
    names = ("same_token", "norms_moved", "log_probability_moved")
    return {form: dict(zip(names, map(mean, zip(*found, strict=True)), strict=True)) for form, found in rows.items()}


def size_of(engine: TransformersEngine) -> int:
    """Return the bytes of a model's weights, packed ones among them."""
    tensors = {id(tensor): tensor for tensor in [*engine.model.parameters(), *engine.model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def table_of(document: dict[str, Any]) -> list[list[str]]:
    """Return the header and the rows of the table that is printed and published."""
    batches = list(next(iter(document["forms"].values()))["seconds"])
    header = ["weights", *(f"tokens/s, batch of {batch}" for batch in batches), "GB", "same token", "norms moved"]
    rows = [header]
    for form, found in document["forms"].items():
        rates = [f"{int(batch) / median(seconds):.1f}" for batch, seconds in found["seconds"].items()]
        accuracy = found["accuracy"]
        rows.append(
            [
                form,
                *rates,
                f"{found['bytes'] / 1e9:.2f}",
                f"{accuracy['same_token']:.1%}",
                f"{accuracy['norms_moved']:.1%}",
            ]
        )
    return rows


def publish(document: dict[str, Any], file: Path) -> None:
    """Put the table between its marks in a Markdown file."""
    header, *rows = table_of(document)
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    put(file, MARK, "\n".join(lines))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder, a GGUF file or a name on the hub")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100, help="of each answer whose accuracy is read")
    parser.add_argument("--out", type=Path, default=results_file("packing", "cpu"))
    parser.add_argument("--publish", type=Path, help="a Markdown file whose table is replaced")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    engines = {form: load(options.model, form) for form in (BASE, *FORMS)}
    document: dict[str, Any] = {
        "machine": machine(PACKAGES) | {"threads": options.threads},
        "model": Path(options.model).name,
        "forms": {form: {"bytes": size_of(engine), "seconds": {}} for form, engine in engines.items()},
    }
    for form, accuracy in compare(engines, options.prompts, options.tokens).items():
        document["forms"][form]["accuracy"] = accuracy
    for batch in options.batches.split(","):
        for form, seconds in time_forms(engines, int(batch), options.repeats).items():
            document["forms"][form]["seconds"][batch] = seconds
        gc.collect()
        write_json(options.out, document)
    header, *rows = table_of(document)
    table = Table(*header, title=document["model"])
    for row in rows:
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 160).print(table)
    if options.publish:
        publish(document, options.publish)
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
