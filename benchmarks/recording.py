"""What it costs to record more than norms: distributions, updates and mean states, in batches of 1, 8 and 32.

    python -m benchmarks.recording
    python -m benchmarks.recording --device cuda --dtype bfloat16

The model has the shape of Qwen2.5-0.5B, with its vocabulary of 151,936 tokens, and random weights. Sides take turns in
one process, as in `chat.py`; all are compared with recording the norms of late layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.setups import PACKAGES, discard, listed, load_abacus
from benchmarks.timing import machine, print_table, results_file, summarise, take_turns, write_json
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.norms.layers import select_layers

BATCHES = ("1", "8", "32")
BAR = 1.03
KEPT = ("distribution", "updates", "mean_states")


def load_qwen(device: str, dtype: str) -> tuple[Any, Any]:
    """Return a model with the shape of Qwen2.5-0.5B, of random parameters, and Abacus' tokenizer."""
    _, tokenizer = load_abacus()
    config = transformers.Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.to(device).eval(), tokenizer


def sides_of(engine: TransformersEngine, batch_size: int, num_tokens: int) -> dict[str, Any]:
    """Return what does the work, by name; the first is what the others are compared with."""
    layers = select_layers("late", engine.num_layers)
    records = {"norms": Record(layers=layers)}
    records |= {f"norms, {name}": Record(layers=layers, **{name: True}) for name in KEPT}
    records["norms, all three"] = Record(layers=layers, **dict.fromkeys(KEPT, True))
    prompts = [tuple(range(3, 35 + number)) for number in range(batch_size)]

    def run(record: Record) -> None:
        sampling = Sampling(temperature=0, max_tokens=num_tokens)
        requests = [Request(prompt, sampling, record, max_batch_size=batch_size) for prompt in prompts]
        discard(engine.generate(requests))

    return {name: lambda record=record: run(record) for name, record in records.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=listed(BATCHES), default=list(BATCHES), help=",".join(BATCHES))
    parser.add_argument("--repeats", type=int, default=8, help="rounds per row")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens per sequence")
    parser.add_argument("--out", type=Path, help="by default recording.json or recording-DEVICE.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model is")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    options.out = options.out or results_file("recording", options.device)
    transformers.logging.set_verbosity_error()
    document: dict[str, Any] = {"machine": machine(PACKAGES) | {"device": options.device}, "rows": {}}
    model, tokenizer = load_qwen(options.device, options.dtype)
    engine = TransformersEngine(model, tokenizer, prefix_cache_bytes=0)
    for batch_size in map(int, options.batches):
        sides = sides_of(engine, batch_size, options.tokens)
        timings = take_turns(model, sides, options.repeats)
        document["rows"][f"batch of {batch_size}"] = summarise(timings, dict.fromkeys(sides, BAR))
        write_json(options.out, document)
    print_table(f"Qwen2.5-0.5B's shape, {options.dtype}, {options.device}", document["rows"])
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
