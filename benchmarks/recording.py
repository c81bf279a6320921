"""What it costs to record more than norms: distributions, updates and mean states, in batches of 1, 8 and 32.

    python -m benchmarks.recording
    python -m benchmarks.recording --device cuda --dtype bfloat16
    python -m benchmarks.recording --lens --batches 1,8

The model has the shape of Qwen2.5-0.5B, with its vocabulary of 151,936 tokens, and random weights. Sides take turns in
one process, as in `chat.py`; all are compared with recording the norms of late layers. With `--lens` the model is
smaller, with a vocabulary of 32,000, and the other side reads the late layers through a lens, whose cost has no bar.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
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
    shape: dict[str, Any] = {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    }
    return _random_model(shape, device, dtype)


def load_small(device: str, dtype: str) -> tuple[Any, Any]:
    """Return a model of 12 layers with a vocabulary of 32,000, likewise."""
    shape: dict[str, Any] = {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
    }
    return _random_model(shape, device, dtype)


def _random_model(shape: dict[str, Any], device: str, dtype: str) -> tuple[Any, Any]:
    _, tokenizer = load_abacus()
    config = transformers.Qwen2Config(
        **shape,
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


def records_of(engine: TransformersEngine, *, has_lens: bool) -> dict[str, Record]:
    """Return what is recorded, by name; the first is what the others are compared with."""
    layers = select_layers("late", engine.num_layers)
    plain = Record(layers=layers)
    if has_lens:
        return {"norms": plain, f"norms, a lens of {len(layers)} layers": replace(plain, lens=layers)}
    kept: dict[str, Any] = dict.fromkeys(KEPT, True)
    each = {f"norms, {name}": replace(plain, **{name: kept[name]}) for name in KEPT}
    return {"norms": plain, **each, "norms, all three": replace(plain, **kept)}


def sides_of(engine: TransformersEngine, batch_size: int, num_tokens: int, *, has_lens: bool = False) -> dict[str, Any]:
    """Return what does the work, by name."""
    records = records_of(engine, has_lens=has_lens)
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
    parser.add_argument("--lens", action="store_true", help="what a lens costs, on a smaller model")
    options = parser.parse_args()
    options.out = options.out or results_file("recording-lens" if options.lens else "recording", options.device)
    transformers.logging.set_verbosity_error()
    document: dict[str, Any] = {"machine": machine(PACKAGES) | {"device": options.device}, "rows": {}}
    model, tokenizer = (load_small if options.lens else load_qwen)(options.device, options.dtype)
    engine = TransformersEngine(model, tokenizer, prefix_cache_bytes=0)
    for batch_size in map(int, options.batches):
        sides = sides_of(engine, batch_size, options.tokens, has_lens=options.lens)
        timings = take_turns(model, sides, options.repeats)
        bars = {} if options.lens else dict.fromkeys(sides, BAR)
        document["rows"][f"batch of {batch_size}"] = summarise(timings, bars)
        write_json(options.out, document)
    shape = "12 layers of 512, 32,000 tokens" if options.lens else "Qwen2.5-0.5B's shape"
    print_table(f"{shape}, {options.dtype}, {options.device}", document["rows"])
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
