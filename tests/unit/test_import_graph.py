"""Arrows between modules point one way, and importing langnorm is quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import langnorm

ROOT = Path(langnorm.__file__).parent
HEAVY = {"torch", "transformers", "tokenizers", "accelerate", "langchain_core", "langchain", "langgraph"}
LANGCHAIN = {"langchain_core", "langchain", "langgraph"}

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "lazy"),
    ("checks", "credentials", "files", "stored", "work"),
    ("text", "norms", "evaluation.statistics", "reductions"),
    ("stored_trace", "viz.html", "evaluation.intervals"),
    ("interventions", "trace", "probes.sae", "probes.sae_batches", "probes.answer_states"),
    ("scores", "engines.options"),
    ("engines.requests", "trace_builder", "probes.sae_training", "probes.reasoning_features"),
    ("selection.canonical", "selection.endings", "selection.quantities"),
    ("selection.values",),
    ("selection.statements",),
    ("selection.answers", "selection.pruning", "selection.stopping", "engines.base"),
    ("selection.options", "engines", "abacus"),
    ("selection.ranking", "selection.score_pruner", "engines.transformers"),
    ("engines.llamacpp", "engines.vllm"),
    ("chat",),
    ("wire", "wrapped_models"),
    ("remote",),
    ("chat_models",),
    ("selection", "retry", "viz"),
    ("testing", "evaluation"),
    ("middleware", "probes", "feedback"),
    ("",),
    ("server",),
    ("cli",),
    ("__main__",),
)
"""Folders and modules from the ground up. A module imports from its own entry and from lower floors only; what is named
more exactly counts, so `engines.base` is on its own floor and the rest of `engines` on another. `""` is the package."""

WITHOUT_LANGCHAIN = ("engines", "norms", "interventions", "abacus", "text", "scores")
"""What knows nothing of LangChain."""

PURE_FOLDERS = (
    "text",
    "scores",
    "evaluation.intervals",
    "evaluation.statistics",
    "interventions.options",
    "interventions.plan",
    "norms.thresholds",
)
"""What imports neither torch, transformers nor LangChain when it is imported, nor anything of langnorm that does."""

ALSO_PURE = (
    "errors",
    "checks",
    "credentials",
    "files",
    "lazy",
    "reductions",
    "stored",
    "stored_trace",
    "work",
    "trace",
    "viz.html",
    "norms.baseline",
    "norms.calibration",
    "norms.calibration_checkpoint",
    "norms.calibration_prompts",
    "norms.calibration_report",
    "norms.curve",
    "norms.frozen",
    "norms.identity",
    "norms.layers",
    "norms.loops",
    "norms.p_square",
    "norms.profile",
    "norms.reading",
    "norms.reference_estimator",
    "norms.recorded_steps",
    "norms.relative",
    "norms.sinks",
    "norms.step_ranks",
    "norms.stored_arrays",
    "norms.stored_sketch",
    "interventions.layer_threshold",
    "norms.token_file",
    "norms.token_sums",
    "norms.token_table",
    "interventions.random_draws",
    "chat.answer_prefix",
    "engines.base",
    "engines.checkpoint",
    "engines.deadline",
    "engines.interrupts",
    "engines.options",
    "engines.registry",
    "engines.requests",
    "engines.stoppable",
    "engines.transformers.batching",
    "engines.transformers.prefill_plan",
    "engines.transformers.prefix_cache",
    "engines.process_events",
    "engines.sample_group",
    "engines.samples_to_draw",
    "engines.sequence",
    "selection.answers",
    "selection.canonical",
    "selection.endings",
    "selection.options",
    "selection.pruning",
    "selection.quantities",
    "selection.ranking",
    "selection.score_pruner",
    "selection.statements",
    "selection.stopping",
    "selection.values",
    "retry.attempts",
    "middleware.note",
)


def module_name(path: Path) -> str:
    """Returns the dotted name of a module's file, without `langnorm.` in front; that of the package itself is empty."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def is_below(name: str, *packages: str) -> bool:
    """Returns whether a module is one of these packages or inside one."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


PURE = [name for name in MODULES if is_below(name, *PURE_FOLDERS, *ALSO_PURE)]


def is_type_checking(node: ast.AST) -> bool:
    """Returns whether a statement is an `if TYPE_CHECKING:` block."""
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


@cache
def imported_names(path: Path, *, at_import: bool) -> set[str]:
    """Returns the dotted names that a module imports.

    Args:
        path: File of the module.
        at_import: Whether only what is imported with the module itself counts; else imports inside functions and those
            for type checkers count as well.
    """
    names: set[str] = set()
    package = ["langnorm", *filter(None, module_name(path).split("."))]
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST) -> None:
        if at_import and is_type_checking(node):
            for other in node.orelse:  # type: ignore[attr-defined]
                visit(other)
            return
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from langnorm import chat_models` imports a module, which need not have the package before it.
            modules = {f"{name}.{alias.name}" for alias in node.names if is_module(f"{name}.{alias.name}")}
            names.update(modules)
            if len(modules) < len(node.names):
                names.add(name)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def is_module(name: str) -> bool:
    """Returns whether a dotted name is that of one of our modules."""
    return name == "langnorm" or (name.startswith("langnorm.") and name.removeprefix("langnorm.") in MODULES)


def our_modules(names: set[str]) -> set[str]:
    """Returns the modules of langnorm among dotted names, without `langnorm.` in front."""
    return {name.removeprefix("langnorm").removeprefix(".") for name in names if is_module(name)}


def entry(name: str) -> tuple[int, str]:
    """Returns the floor of a module, and the entry of `FLOORS` that names it most exactly."""
    entries = [(len(part), floor, part) for floor, parts in enumerate(FLOORS) for part in parts if is_below(name, part)]
    if not entries:
        return len(FLOORS), name
    _, floor, part = max(entries)
    return floor, part


def test_the_graph_is_read_right(tmp_path, monkeypatch) -> None:
    """Imports are found wherever they stand; those of functions and of type checkers where all count."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "langnorm")
    path = tmp_path / "langnorm" / "engines" / "some.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from typing import TYPE_CHECKING\nimport torch.nn\nfrom . import base\nfrom ..norms.layers import x\n"
        "if TYPE_CHECKING:\n    import langchain_core\nelse:\n    import json\n"
        "try:\n    import rich\nexcept ImportError:\n    pass\n"
        "class A:\n    import os\n    def f(self):\n        from langnorm import chat_models\n"
    )

    at_import = {"typing", "torch.nn", "langnorm.engines.base", "langnorm.norms.layers", "json", "rich", "os"}
    assert imported_names(path, at_import=True) == at_import
    assert imported_names(path, at_import=False) == at_import | {"langchain_core", "langnorm.chat_models"}


def test_entries_are_the_most_exact() -> None:
    """A module that is named itself stands on its own floor, and one that nobody names on the top."""
    assert entry("engines.base")[1] == "engines.base"
    assert entry("engines.registry")[1] == "engines"
    assert entry("engines.base")[0] < entry("engines.registry")[0] < entry("engines.transformers.engine")[0]
    assert entry("selection.selector") > entry("chat_models")
    assert entry("nobody.knows") > entry("cli") > entry("") > entry("middleware.retry")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_arrows_point_down(name) -> None:
    """No floor knows a higher one or another entry of its own, in functions and for type checkers neither."""
    floor, part = entry(name)
    reached = our_modules(imported_names(MODULES[name], at_import=False)) - {name}
    # Packages only say what they re-export: that a name is theirs too is no arrow.
    is_package = MODULES[name].name == "__init__.py"
    wrong = {
        other
        for other in reached
        if entry(other)[1] != part and entry(other)[0] >= floor and not (is_package and is_below(other, name))
    }
    assert not wrong


def test_modules_form_no_circle() -> None:
    """Of any kind: counting imports in functions and for type checkers, packages' re-exports aside."""
    graph = {
        name: our_modules(imported_names(path, at_import=False)) - {name}
        for name, path in MODULES.items()
        if path.name != "__init__.py"
    }
    while graph:
        leaves = {name for name, reached in graph.items() if not reached & graph.keys()}
        assert leaves, f"in a circle: {sorted(graph)}"
        graph = {name: reached for name, reached in graph.items() if name not in leaves}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_nothing_heavy(name) -> None:
    """And nothing of langnorm that does, when they are imported."""
    names = imported_names(MODULES[name], at_import=True)
    assert not {other.split(".")[0] for other in names} & HEAVY
    packages = {other for other in MODULES if MODULES[other].name == "__init__.py"}
    assert our_modules(names) <= {*PURE, *packages}


@pytest.mark.parametrize(
    "name", [name for name in MODULES if is_below(name, "engines", "norms", "interventions", "abacus")]
)
def test_engines_and_norms_never_import_langchain(name) -> None:
    """What runs a model knows nothing of LangChain, not even inside a function."""
    names = imported_names(MODULES[name], at_import=False)
    assert not {other.split(".")[0] for other in names} & LANGCHAIN


def test_modules_are_short() -> None:
    """No file of code has more than 350 lines."""
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: length for name, length in lengths.items() if length > 350}


def run_python(code: str) -> None:
    """Runs code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_langnorm_imports_nothing_heavy() -> None:
    """`import langnorm` and its pure modules are quick."""
    names = ", ".join(f"langnorm.{name}" for name in PURE)
    run_python(f"import sys, langnorm, {names}\nloaded = {HEAVY!r} & set(sys.modules)\nassert not loaded, loaded")


def test_constructor_loads_no_weights() -> None:
    """A chat model is made without its weights and without the engine that would load them."""
    run_python(
        "import sys\n"
        "from langnorm import ChatLangNorm, NormTrace\n"
        "ChatLangNorm(temperature=0)\n"
        "ChatLangNorm(model='/there/is/no/such/folder').bind(stop=['x'])\n"
        "assert not [name for name in sys.modules if name.startswith('langnorm.engines.transformers')]\n"
    )
