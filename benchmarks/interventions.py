"""What recursion and steering cost on top of recording norms, in batches of 1, 8 and 32.

    python -m benchmarks.interventions
    python -m benchmarks.interventions --models abacus --batches 1,8

Sides take turns in one process, as in `chat.py`. `idle` sides have interventions that never trigger. The side
`every token` runs the late layers once more for every token and takes none of the new states, so that the text
stays the same: what it takes longer, divided by the extra passes, is compared with a layer's share of an ordinary
forward pass.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import transformers
from langchain_core.messages import HumanMessage

from benchmarks.setups import MODELS, PACKAGES, discard, listed, prompts
from benchmarks.timing import machine, print_table, results_file, summarise, take_turns, write_json
from langnorm import ChatLangNorm, Recursion, Steering
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.norms.layers import select_layers

BATCHES = ("1", "8", "32")
NEVER, ALWAYS = 1e15, 1e-12  # thresholds above and below every norm
RUNNING_NEVER = {"rule": "running", "k": NEVER}
PASS_BAR, IDLE_RECURSION_BAR, IDLE_STEERING_BAR = 1.3, 1.02, 1.03


def sides_of(engine: TransformersEngine, batch_size: int, num_tokens: int) -> dict[str, Any]:
    """Return what does the work, by name; the first is what the others are compared with."""
    chats = [[HumanMessage(text)] for text in prompts(batch_size)]
    options = {"temperature": 0, "max_tokens": num_tokens, "max_batch_size": batch_size}
    chat = ChatLangNorm(engine=engine, **options)
    rerun = Recursion(threshold=ALWAYS, blowup=1e30, growth_eps=1e9)
    interventions = {
        "norms only": {},
        "recursion idle": {"recursion": Recursion(threshold=NEVER)},
        "steering idle": {"steering": Steering(threshold=NEVER, trigger="slack", low_k=10**9)},
        "recursion idle, running threshold": {"recursion": Recursion(threshold=RUNNING_NEVER)},
        "steering idle, running threshold": {"steering": Steering(threshold=RUNNING_NEVER)},
        "recursion, every token": {"recursion": rerun},
    }
    return {name: lambda given=given: discard(chat.batch(chats, **given)) for name, given in interventions.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=listed(MODELS), default=list(MODELS), help=",".join(MODELS))
    parser.add_argument("--batches", type=listed(BATCHES), default=list(BATCHES), help=",".join(BATCHES))
    parser.add_argument("--repeats", type=int, help="rounds per row")
    parser.add_argument("--tokens", type=int, help="new tokens per sequence")
    parser.add_argument("--out", type=Path, help="by default interventions.json or interventions-DEVICE.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the models are")
    options = parser.parse_args()
    options.out = options.out or results_file("interventions", options.device)
    transformers.logging.set_verbosity_error()
    document: dict[str, Any] = {"machine": machine(PACKAGES) | {"device": options.device}, "models": {}}
    for model_name in options.models:
        setup = MODELS[model_name]
        model, tokenizer = setup.load()
        model.to(options.device)
        never = model.config.vocab_size
        model.generation_config = transformers.GenerationConfig(eos_token_id=never, pad_token_id=tokenizer.pad_token_id)
        engine, results = TransformersEngine(model, tokenizer, prefix_cache_bytes=0), {}
        num_layers = engine.num_layers
        num_late = len(select_layers("late", num_layers))
        for batch_size in map(int, options.batches):
            sides = sides_of(engine, batch_size, options.tokens or setup.num_tokens)
            timings = take_turns(model, sides, options.repeats or setup.repeats)
            bars = {
                "recursion idle": IDLE_RECURSION_BAR,
                "steering idle": IDLE_STEERING_BAR,
                "recursion idle, running threshold": IDLE_RECURSION_BAR,
                "steering idle, running threshold": IDLE_STEERING_BAR,
                "recursion, every token": 1 + PASS_BAR * num_late / num_layers,
            }
            row = results[f"batch of {batch_size}"] = summarise(timings, bars)
            every = row["sides"]["recursion, every token"]
            every["cost_of_an_extra_pass"] = (every["wall"].median - 1) * num_layers / num_late
            document["models"][model_name] = results
            write_json(options.out, document)
        print_table(f"{model_name}", results)
        for name, row in results.items():
            cost = row["sides"]["recursion, every token"]["cost_of_an_extra_pass"]
            print(f"{name}: an extra pass through a layer costs {cost:.2f} of its share of a forward pass")
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
