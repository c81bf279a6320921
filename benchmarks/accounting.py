"""What norms, interventions and reductions cost by account: CPU time inside their code, over that of the whole batch.

    python -m benchmarks.accounting

Norms and interventions on Abacus; reductions (`Record(distribution=..., updates=..., mean_states=...)`) on a model with
the shape and the vocabulary of Qwen2.5-0.5B and random weights, over recording norms alone.

`accounts.py` says what that is good for. Two runs side by side are in `chat.py` and `interventions.py`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

import langnorm.chat.results
from benchmarks import interventions, recording
from benchmarks.accounts import account, measure_accounts
from benchmarks.setups import MODELS
from langnorm.engines.token_choice.logprobs import LogprobRecorder
from langnorm.engines.transformers.batch import BatchGenerator
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.intervening import Intervener
from langnorm.engines.transformers.norm_recorder import NormRecorder
from langnorm.engines.transformers.state_reducer import StateReducer
from langnorm.norms.online import OnlineStatistics

ACCOUNTS = ("batch", "norms", "traces", "interventions", "reductions")


def measure(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of each account for each side."""
    return {
        name: {one: statistics.median(run.get(one, 0.0) for run in runs) for one in ACCOUNTS}
        for name, runs in measure_accounts(sides, repeats).items()
    }


def open_accounts() -> None:
    """Add up what is spent in the code of norms, interventions and reductions, from now on."""
    account(BatchGenerator, "generate", "batch")
    account(NormRecorder, "_hook", "norms", returns_function=True)
    account(NormRecorder, "rows", "norms")
    account(OnlineStatistics, "update", "norms")
    account(langnorm.chat.results, "build_message_trace", "traces")
    account(Intervener, "_hook", "interventions", returns_function=True)
    account(Intervener, "next_step", "interventions")
    account(StateReducer, "_take", "reductions", returns_function=True)
    for owner, names in (
        (StateReducer, ("next_step", "updates", "mean_states")),
        (LogprobRecorder, ("__call__", "add_chosen", "distribution")),
    ):
        for name in names:
            account(owner, name, "reductions")


def account_interventions(batches: list[int], num_tokens: int, repeats: int) -> None:
    """Print what norms and interventions cost on Abacus."""
    model, tokenizer = MODELS["abacus"].load()
    never = model.config.vocab_size
    model.generation_config = transformers.GenerationConfig(eos_token_id=never, pad_token_id=tokenizer.pad_token_id)
    engine = TransformersEngine(model, tokenizer, prefix_cache_bytes=0)
    for batch_size in batches:
        found = measure(interventions.sides_of(engine, batch_size, num_tokens), repeats)
        norms = found.pop("norms only")
        with_norms, without = norms["batch"] + norms["traces"], norms["batch"] - norms["norms"]
        print(f"| {batch_size} | norms | {with_norms / without:.3f} |")
        for name, spent in found.items():
            extra = spent["interventions"] + spent["norms"] - norms["norms"]
            print(f"| {batch_size} | {name} | {1 + extra / norms['batch']:.3f} |")


def account_reductions(batches: list[int], num_tokens: int, repeats: int) -> None:
    """Print what reductions cost on a large vocabulary."""
    model, tokenizer = recording.load_qwen("cpu", "float32")
    engine = TransformersEngine(model, tokenizer, prefix_cache_bytes=0)
    for batch_size in batches:
        found = measure(recording.sides_of(engine, batch_size, num_tokens), repeats)
        norms = found.pop("norms")
        for name, spent in found.items():
            print(f"| {batch_size} | {name} | {1 + (spent['reductions'] - norms['reductions']) / norms['batch']:.3f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("interventions", "reductions"))
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    open_accounts()
    batches = [int(batch) for batch in options.batches.split(",")]
    print("| batch | what is on | over the batch without |\n|---|---|---|")
    if options.only != "reductions":
        account_interventions(batches, options.tokens, options.repeats)
    if options.only != "interventions":
        account_reductions(batches, options.tokens, options.repeats)


if __name__ == "__main__":
    main()
