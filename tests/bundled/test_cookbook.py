"""The cookbook: its notebooks say what they show, and its script does what it says."""

from __future__ import annotations

import base64
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from tests.support.notebooks import (
    COOKBOOK,
    NOTEBOOKS,
    code_cells,
    committed_text,
    num_committed_pictures,
    read,
    run_cell,
)
from tests.support.servers import LOOPBACK

pytestmark = LOOPBACK  # one notebook starts a server


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_its_cells_print(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs, and prints and draws what is committed: where it does not, `make notebooks` writes it anew."""
    monkeypatch.chdir(COOKBOOK)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    namespace: dict[str, object] = {"__name__": "__main__"}
    try:
        for cell in code_cells(read(path)):
            found = run_cell("".join(cell["source"]), namespace, f"{path.name}, {cell['id']}")
            assert found == (committed_text(cell), num_committed_pictures(cell)), cell["id"]
    finally:
        for started in namespace.values():
            if isinstance(started, subprocess.Popen) and started.poll() is None:
                started.kill()
                started.communicate()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_of_no_machine(path: Path) -> None:
    """It begins with a title, has plots, and nothing of where and when it was executed."""
    notebook = read(path)
    assert path.stat().st_size < 300_000
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{i:02}" for i, _ in enumerate(notebook["cells"], 1)]
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    shown = [output.get("data", {}) for cell in cells for output in cell["outputs"]]
    pictures = [data["image/png"] for data in shown if "image/png" in data]
    assert pictures
    assert not any(b"Software" in base64.b64decode(picture) for picture in pictures)
    texts = "\n".join(committed_text(cell) for cell in cells)
    assert not re.search(r"(?m)/(home|tmp|root|usr|opt|work)/|0x[0-9a-f]{8}", texts)


def test_the_notebooks_are_listed() -> None:
    """By the README of the cookbook, all of them."""
    text = (COOKBOOK / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d\d_\w+\.ipynb)\)", text) == [path.name for path in NOTEBOOKS]


def test_live_norms(monkeypatch, capsys) -> None:
    """The answer as it is, and then a bar for each chunk, as long as its norms are large."""
    script = str(COOKBOOK / "live_norms.py")
    monkeypatch.setattr("sys.argv", [script, "What is 47 + 385?"])
    runpy.run_path(script, run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("47")
    bars = re.findall(r"(?m)^'.*' +(\d\.\d\d) (#*)$", printed)
    assert len(bars) > 10
    assert all(abs(len(bar) - 40 * float(heat)) < 1 for heat, bar in bars)
