"""The harness and its own model of transformers, beside which langnorm's is put."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import TESTS

TASKS = TESTS / "fixtures" / "lm_eval"
BATCH_SIZE = 4


@pytest.fixture(autouse=True, scope="session")
def _harness(tmp_path_factory) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-evaluation-harness is not installed here: `make test-lm-eval` installs it and runs these tests")
    with pytest.MonkeyPatch.context() as patch:
        # Read when the library of data sets is imported.
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="session")
def abacus_folder() -> str:
    """Returns the folder of the bundled model, or the one that `LM_EVAL_MODEL` names."""
    import langnorm.abacus

    return os.environ.get("LM_EVAL_MODEL") or str(langnorm.abacus.path())


@pytest.fixture(scope="session")
def hf(abacus_folder) -> Any:
    """Returns the harness' own model of transformers over the bundled model."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=abacus_folder, device="cpu", dtype="float32", batch_size=BATCH_SIZE)


@pytest.fixture(scope="session")
def model_with(abacus_folder) -> Callable[..., Any]:
    """Returns langnorm's model with some arguments; the weights are loaded once."""
    from langnorm_lm_eval import LangNormLM

    def build(**model_args: Any) -> LangNormLM:
        given = {"pretrained": abacus_folder, "dtype": "float32", "batch_size": BATCH_SIZE, **model_args}
        return LangNormLM(**given)

    return build


@pytest.fixture(scope="session")
def ours(model_with) -> Any:
    """Returns langnorm's model with everything off."""
    return model_with()


@pytest.fixture
def evaluate(monkeypatch) -> Callable[..., dict[str, Any]]:
    """Returns a function that evaluates a model on the local tasks of some names."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(TASKS)  # where the tasks find their files

    def run(model: Any, *tasks: str, **options: Any) -> dict[str, Any]:
        manager = TaskManager(include_path=str(TASKS), include_defaults=False)
        results: dict[str, Any] = lm_eval.simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options
        )
        return results

    return run


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    """Returns requests of the harness, each of its arguments."""
    from lm_eval.api.instance import Instance

    return [Instance("generate_until", {}, given, 0) for given in arguments]
