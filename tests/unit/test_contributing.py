"""What CONTRIBUTING.md says is there is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:langnorm|tests)/[\w/.]*)`", TEXT))))
def test_paths_exist(path: str) -> None:
    """Every file and folder that it names."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make (\w+)", TEXT))))
def test_targets_exist(target: str) -> None:
    """Every command of make that it names."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_example_of_a_score_runs() -> None:
    """It is registered, and scores a response."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    check = (
        "from langnorm.scores import SCORES\nscore = SCORES['last_logprob'].function\n"
        "assert score(Sample((), (), logprobs=[-2.0, -1.0])) == -1.0\nassert score(Sample((), ())) is None"
    )
    subprocess.run([sys.executable, "-c", f"{example}\n{check}"], check=True, cwd=ROOT)
