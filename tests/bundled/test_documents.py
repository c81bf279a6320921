"""What README and documentation show works as it stands there, and prints what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"```python\n(.*?)```(?:\n\nprints\n\n```text\n(.*?)```)?", re.DOTALL)
BLOCKS: list[Any] = [
    pytest.param(path, code, output, id=f"{path.stem}-{number}")
    for path in DOCUMENTS
    for number, (code, output) in enumerate(_BLOCK.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("path", "code", "output"), BLOCKS)
def test_python_blocks_run(path: Path, code: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every one, in a namespace of its own, and prints what is said; models of the hub are built, not called."""
    namespace: dict[str, object] = {}
    if not code.startswith("from"):
        code = "from langnorm import ChatLangNorm\n" + code
    exec(compile(code, str(path), "exec"), namespace)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    if output:
        assert printed == [line.rstrip() for line in output.splitlines()]
    elif "print" in code:
        assert any(printed)


def test_the_readme_is_short() -> None:
    """A newcomer reads it in two minutes; the rest is documentation, and all of it is reached from there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 200
    pages = {path.name for path in DOCUMENTS[1:]} - {"index.md", "reference.md"}
    assert {page for page in pages if f"](docs/{page})" not in readme} == set()


def test_the_written_out_commands_are_those_of_make() -> None:
    """`make demo` and `make test` and their long forms ask for the same things."""
    makefile = (ROOT / "Makefile").read_text()
    text = (ROOT / "README.md").read_text()
    (question,) = re.findall(r'langnorm ask "([^"]+)"', makefile)
    assert question in text
    install, run = "--constraint constraints.txt --editable . --group dev", "-m pytest --numprocesses auto\n"
    for arguments in ('"pip>=25.1"', install, run):
        assert arguments in makefile
        assert arguments in text
