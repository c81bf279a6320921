"""The notebooks of the cookbook: executed anew by `python -m tests.support.notebooks`, and as the tests compare them.

A kernel of Jupyter executes them here, as it does for readers. Tests run the same cells in a process of theirs, which
takes a fraction of the time, and must find the same texts.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

COOKBOOK = Path(__file__).parents[2] / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.glob("*.ipynb"))
_COLOURS = 64  # of a plot: enough for lines and bars, and a fraction of the bytes


def read(path: Path) -> dict[str, Any]:
    """Returns a notebook as it is stored."""
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns its cells of code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def committed_text(cell: dict[str, Any]) -> str:
    """Returns what a cell has printed, and then its value, as the notebook shows them; pictures have no text."""
    parts = []
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            parts.append("".join(output["text"]))
        elif "image/png" not in output["data"]:
            parts.append("".join(output["data"]["text/plain"]))
    return "".join(parts).rstrip()


def num_committed_pictures(cell: dict[str, Any]) -> int:
    """Returns how many pictures a cell shows."""
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def run_cell(source: str, namespace: dict[str, Any], name: str) -> tuple[str, int]:
    """Runs a cell in this process; returns its text as `committed_text` does, and how many pictures it has drawn."""
    import matplotlib.pyplot as plt
    from IPython.lib.pretty import pretty

    *body, last = ast.parse(source, name).body
    has_value = isinstance(last, ast.Expr)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(ast.Module(body if has_value else [*body, last], []), name, "exec"), namespace)
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace) if has_value else None
    num_pictures = len(plt.get_fignums())
    plt.close("all")
    return (printed.getvalue() + ("" if value is None else pretty(value))).rstrip(), num_pictures


def execute(path: Path) -> None:
    """Executes a notebook by a kernel, and writes it back with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(COOKBOOK)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources, record_timing=False).execute()
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number:02}", {}
        if cell.cell_type == "code":
            # What goes to stderr is progress; it is of the moment.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
                if "image/png" in output.get("data", {}):
                    output.data = {"image/png": small_picture(output.data["image/png"])}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def small_picture(encoded: str) -> str:
    """Returns a picture with few colours, and without the version of what drew it."""
    from PIL import Image

    drawn = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").quantize(_COLOURS)
    written = io.BytesIO()
    drawn.save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def main() -> None:
    """Executes the notebooks whose names begin as one of the arguments, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="such as 01 04")
    names = parser.parse_args().names
    os.environ["HF_HUB_OFFLINE"] = "1"
    for path in NOTEBOOKS:
        if not names or path.name.startswith(tuple(names)):
            sys.stderr.write(f"{path.name}\n")
            execute(path)


if __name__ == "__main__":
    main()
