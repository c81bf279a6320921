"""vLLM in processes of its own, with a model that is compiled into a graph: as most people run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.calls import PROMPTS
from tests.support.interventions import (
    LOOPS,
    RECURSIONS,
    STEERING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)
from tests.support.vllm_script import run_script
from tests.vllm.conftest import SMALL, sizes_of

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        "TRITON_INTERPRET" in os.environ, reason="Triton's kernels are interpreted in one process alone"
    ),
]

SCRIPT = """
import os
import sys
from functools import reduce
from operator import add
import psutil
import torch
from langnorm import ChatLangNorm, NormTrace
from langnorm.engines.registry import get_engine
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request

def main():
    options = {"max_model_len": 2048, "kv_cache_memory_bytes": 2**28}
    chat = ChatLangNorm(engine="vllm", temperature=0, engine_kwargs=options)
    reply = chat.invoke("Calculate 47 + 385.")
    assert "432" in reply.content, reply
    assert NormTrace.from_message(reply).intensity is not None
    streamed = reduce(add, chat.stream("Calculate 47 + 385.", norms="tokens"))
    assert streamed.content == reply.content
    assert len(NormTrace.from_message(streamed).token_norms) == NormTrace.from_message(reply).tokens - 1
    request = Request(tuple(range(5, 40)), Sampling(max_tokens=30), Record(layers=(0, 5, 11)))
    found, right = (
        engine.generate([request])[0].completions[0]
        for engine in (get_engine("vllm", "abacus", {}, options), get_engine("transformers", "abacus", {}))
    )
    assert found.token_ids == right.token_ids
    torch.testing.assert_close(torch.tensor(found.norms), torch.tensor(right.norms), rtol=1e-4, atol=1e-4)
    try:
        chat.invoke("Hello", recursion={})
    except ValueError as error:
        assert "compiled into a graph" in str(error)
    else:
        raise AssertionError("recursion in a graph")
    try:
        print("ready", flush=True)
        while True:
            chat.invoke("Calculate 47 + 385.")
    except KeyboardInterrupt:
        pass
    print("interrupted", flush=True)
    assert "432" in chat.invoke("Calculate 47 + 385.").content
    print("done", flush=True)
    children = psutil.Process().children(recursive=True)
    print(*(child.pid for child in children if child.name().startswith("VLLM")), flush=True)
    os._exit(0)  # without a word to vLLM, as after a kill

if __name__ == "__main__":
    main()
"""


def gone(pids: Iterable[int]) -> bool:
    """Returns whether processes end within half a minute."""
    import psutil

    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(processes, timeout=30)[1]


def test_the_plugin_imports_nothing_that_depends_on_a_configuration() -> None:
    """Some operations are defined by what vLLM writes into the environment when it makes that of an engine."""
    script = """
import sys
from langnorm_vllm.plugin import register
register()
early = [name for name, module in sys.modules.items() if "eager_break_during_capture" in vars(module)]
assert not set(early) - {"vllm.compilation.breakable_cudagraph"}, early
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no groups of processes on Windows")
def test_a_script_that_is_interrupted_goes_on(tmp_path) -> None:
    """Norms are those of transformers; Ctrl-C, which all processes get, ends one call; vLLM ends with the script."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "VLLM_CPU_CI_ENV": "1"},  # whose compiler takes seconds
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line.strip())
            if said[-1] == "ready":
                os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    *said, pids = said
    assert said == ["ready", "interrupted", "done"]
    assert len(pids.split()) >= 2
    assert gone(map(int, pids.split()))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors cannot be named on this system")
def test_workers_that_share_a_model_agree(vllm_of, model_of, folder_of, tmp_path) -> None:
    """With tensor parallelism each decides for itself what is done to states, by norms that are the same on all."""
    engine, model = vllm_of("qwen3"), model_of("qwen3", **sizes_of("qwen3"))
    kinds = (RECURSIONS["several"], STEERING, SUPPRESSIONS["random"], LOOPS["peaks"])
    requests = [
        request_of(prompt, thresholds(engine, prompt) if options else None, *options)
        for prompt in PROMPTS[:2]
        for options in ((), *((kind,) for kind in kinds))
    ]
    shared = {**SMALL, "in_process": False, "tensor_parallel_size": 2}
    jobs = [({**shared, "enforce_eager": False, "interventions": True}, requests)]
    first, *_, last = [*sorted(os.sched_getaffinity(0)) * 2]
    places = {"VLLM_CPU_OMP_THREADS_BIND": f"{first}|{last}"}  # vLLM asks for as many memory nodes as there are workers
    (found,) = run_script(folder_of("qwen3"), tmp_path, jobs, VLLM_CPU_CI_ENV="1", **places)
    for request, completion in zip(requests, found.completions, strict=True):
        assert_as_defined(model, request, completion)
