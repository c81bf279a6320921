"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block runs, in a namespace of its own; those with a model of the hub are built, not called."""
    namespace: dict[str, object] = {}
    if not block.startswith("from"):
        block = "from langnorm import ChatLangNorm\n" + block
    exec(compile(block, str(README), "exec"), namespace)
    if "print" in block:
        assert capsys.readouterr().out.strip()


def test_the_written_out_commands_are_those_of_make() -> None:
    """`make demo` and `make test` and their long forms ask for the same things."""
    makefile = (README.parent / "Makefile").read_text()
    text = README.read_text()
    (question,) = re.findall(r'langnorm ask "([^"]+)"', makefile)
    assert question in text
    install, run = "--constraint constraints.txt --editable . --group dev", "-m pytest --numprocesses auto --cov"
    for arguments in ('"pip>=25.1"', install, run):
        assert arguments in makefile
        assert arguments in text
