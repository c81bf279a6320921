"""Arrows between modules point one way, and importing langnorm is quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import langnorm

ROOT = Path(langnorm.__file__).parent
HEAVY = {"torch", "transformers", "tokenizers", "accelerate", "langchain_core", "langchain", "langgraph"}
LANGCHAIN = {"langchain_core", "langchain", "langgraph"}
PURE = (
    "options",
    "text",
    "steps",
    "trace",
    "errors",
    "checks",
    "files",
    "attempts",
    "notes",
    "calibration",
    "scores",
    "formulas",
    "samples",
    "answers",
    "ranking",
    "pruning",
    "scoring",
    "interventions.options",
    "interventions.plan",
    "interventions.draws",
    "norms.layers",
    "norms.baseline",
    "norms.curve",
    "norms.p_square",
    "norms.profile",
    "norms.thresholds",
    "engines.base",
    "engines.batching",
    "engines.clock",
    "engines.row",
    "engines.siblings",
)


def module_name(path: Path) -> str:
    """Returns the dotted name of a module's file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def is_type_checking(node: ast.AST) -> bool:
    """Returns whether a statement is an `if TYPE_CHECKING:` block."""
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def imports(path: Path, *, is_lazy: bool) -> set[str]:
    """Returns the dotted names that a module imports at run time.

    Args:
        path: File of the module.
        is_lazy: Whether imports inside functions count too.
    """
    found: set[str] = set()
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST) -> None:
        if is_type_checking(node):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_lazy:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found.add(name)
            # `from langnorm import chat_models` imports a module too.
            found.update(f"{name}.{alias.name}" for alias in node.names if f"{name}.{alias.name}" in MODULES)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def packages(names: set[str]) -> set[str]:
    """Returns the top-level packages of dotted names."""
    return {name.split(".")[0] for name in names}


def below(name: str, *packages: str) -> bool:
    """Returns whether a module is one of these packages of langnorm or inside one."""
    return any(f"{name}.".startswith(f"langnorm.{package}.") for package in packages)


def test_the_graph_is_read_right(tmp_path, monkeypatch) -> None:
    """Imports are found wherever they stand, except where only type checkers look."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "langnorm")
    path = tmp_path / "langnorm" / "engines" / "some.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from typing import TYPE_CHECKING\nimport torch.nn\nfrom . import base\nfrom ..norms.layers import x\n"
        "if TYPE_CHECKING:\n    import langchain_core\nelse:\n    import json\n"
        "try:\n    import rich\nexcept ImportError:\n    pass\n"
        "class A:\n    import os\n    def f(self):\n        from langnorm import chat_models\n"
    )

    always = {
        "typing",
        "torch.nn",
        "langnorm.engines",
        "langnorm.engines.base",
        "langnorm.norms.layers",
        "json",
        "rich",
        "os",
    }
    assert imports(path, is_lazy=False) == always
    assert imports(path, is_lazy=True) == always | {"langnorm", "langnorm.chat_models"}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_nothing_heavy(name) -> None:
    """Options, texts, steps, traces, errors, selections and queues work without torch and LangChain."""
    assert not packages(imports(MODULES[f"langnorm.{name}"], is_lazy=False)) & HEAVY


def test_pure_modules_import_pure_modules_only() -> None:
    """No heavy module is reached through another one of langnorm."""
    pure = {f"langnorm.{name}" for name in PURE}
    parents = {"langnorm", "langnorm.norms", "langnorm.engines", "langnorm.interventions"}
    for name in pure | parents:
        reached = {other for other in imports(MODULES[name], is_lazy=False) if other.startswith("langnorm.")}
        assert reached <= pure | parents


@pytest.mark.parametrize(
    "name", [name for name in MODULES if below(name, "engines", "norms", "interventions", "abacus")]
)
def test_engines_and_norms_never_import_langchain(name) -> None:
    """What runs a model knows nothing of LangChain, not even inside a function."""
    assert not packages(imports(MODULES[name], is_lazy=True)) & LANGCHAIN


@pytest.mark.parametrize("name", sorted(MODULES))
def test_arrows_point_one_way(name) -> None:
    """Wrappers use chat_models, these use messages and engines, engines use norms, norms use options; never back."""
    reached = imports(MODULES[name], is_lazy=True)
    if not below(name, "selection", "retry", "middleware", "cli") and name != "langnorm":
        assert "langnorm.chat_models" not in reached
    if not below(name, "chat_models", "settings", "results", "cli"):
        assert "langnorm.chat.prompts" not in reached
    if below(name, "norms"):
        assert not any(below(other, "interventions") for other in reached)
    if below(name, "norms", "interventions", *(pure for pure in PURE if "." not in pure)):
        assert not any(below(other, "engines", "messages", "abacus") for other in reached)


def test_library_does_not_import_its_command_line() -> None:
    """Nothing but `python -m langnorm` depends on the command line."""
    users = {name for name, path in MODULES.items() if "langnorm.cli" in imports(path, is_lazy=True)}

    assert users <= {"langnorm.__main__"}


def test_modules_do_not_import_each_other_in_circles() -> None:
    """The graph of the imports at module level has no circle."""
    graph = {
        name: {other for other in imports(path, is_lazy=False) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    while graph:
        leaves = {name for name, reached in graph.items() if not reached & graph.keys()}
        assert leaves, f"in a circle: {sorted(graph)}"
        graph = {name: reached for name, reached in graph.items() if name not in leaves}


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
        "assert 'langnorm.engines.transformers.engine' not in sys.modules\n"
        "assert 'langnorm.engines.transformers.token_sampler' not in sys.modules\n"
    )
