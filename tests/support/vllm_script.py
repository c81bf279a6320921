"""A script that runs requests on vLLM, for tests of what needs a process of its own.

    python -m tests.support.vllm_script FOLDER JOBS RESULT [as_on_gpus]

On a CPU vLLM does not compile a model in pieces that are kept on disk, as it does on a GPU: `as_on_gpus` lets it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.vllm_runner import let_triton_interpret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langnorm.engines.requests import Completion, Request

_COMPILATION = {"compile_sizes": [], "pass_config": {"fuse_norm_quant": False, "fuse_act_quant": False}}
"""What GPUs have, without kernels that only they have."""


@dataclass
class Found:
    """What came of a job.

    Attributes:
        completions: Of its requests.
        num_pieces: How many pieces the graph of its model has been cut into.
        num_loaded: How many compiled models were found on disk.
    """

    completions: list[Completion]
    num_pieces: int
    num_loaded: int


def run_script(
    folder: Path, place: Path, jobs: Sequence[tuple[Mapping[str, Any], Sequence[Request]]], *flags: str, **environ: str
) -> list[Found]:
    """Returns what comes of jobs, each an engine's options and requests; files are left at a place."""
    file, result = place / "jobs", place / "result"
    file.write_bytes(pickle.dumps(jobs))
    command = [sys.executable, "-m", "tests.support.vllm_script", folder, file, result, *flags]
    subprocess.run(command, check=True, env={**os.environ, **environ})
    return pickle.loads(result.read_bytes())


def _compile_as_on_gpus() -> None:
    from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass
    from vllm.platforms.cpu import CpuPlatform

    check = CpuPlatform.check_and_update_config.__func__

    def check_and_keep(cls: type[Any], config: Any) -> None:
        compilation = config.compilation_config
        mode, backend = compilation.mode, compilation.backend
        check(cls, config)
        compilation.mode, compilation.backend = mode, backend

    CpuPlatform.check_and_update_config = classmethod(check_and_keep)
    FixFunctionalizationPass.__call__ = lambda *_: None  # it names operations that are missing here


def _main() -> None:
    from vllm.compilation.counter import compilation_counter

    from langnorm.engines.registry import get_engine
    from tests.support import vllm_script  # by the name that the tests know its classes by

    folder, jobs, result, *flags = sys.argv[1:]
    if "TRITON_INTERPRET" in os.environ:
        let_triton_interpret()
    more: dict[str, Any] = {}
    if flags == ["as_on_gpus"]:
        _compile_as_on_gpus()
        more = {"compilation_config": _COMPILATION}
    found = []
    for options, requests in pickle.loads(Path(jobs).read_bytes()):
        before = compilation_counter.clone()
        engine = get_engine("vllm", folder, {}, {**options, **more})
        completions = [response.completions[0] for response in engine.generate(requests)]
        names = ("num_piecewise_graphs_seen", "num_aot_artifacts_loaded")
        counts = [getattr(compilation_counter, name) - getattr(before, name) for name in names]
        found.append(vllm_script.Found(completions, *counts))
    Path(result).write_bytes(pickle.dumps(found))
    os._exit(0)  # vLLM takes seconds to end


if __name__ == "__main__":
    _main()
