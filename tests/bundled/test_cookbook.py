"""The scripts of the cookbook do what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "cookbook"


def test_live_norms(monkeypatch, capsys) -> None:
    """The answer as it is, and then a bar for each chunk, as long as its norms are large."""
    script = str(SCRIPTS / "live_norms.py")
    monkeypatch.setattr("sys.argv", [script, "What is 47 + 385?"])
    runpy.run_path(script, run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("47")
    bars = re.findall(r"(?m)^'.*' +(\d\.\d\d) (#*)$", printed)
    assert len(bars) > 10
    assert all(abs(len(bar) - 40 * float(heat)) < 1 for heat, bar in bars)
