"""Prompts for calibration are neither trained on nor measured with."""

from __future__ import annotations

import json
import sys

import pytest

from langnorm.abacus.generator.base import split_of
from langnorm.abacus.prompts import main, prompts


def test_prompts_are_of_the_development_split() -> None:
    """And the same ones every time, ending with what a user says."""
    drawn = prompts(50)
    assert drawn == prompts(50)
    for messages in drawn:
        assert messages[-1]["role"] == "user"
        said = "\n".join(message["content"] for message in messages if message["role"] == "user")
        assert split_of(said) == "dev"


def test_they_are_printed_as_json_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One list of messages a line, which is what `langnorm calibrate` reads."""
    monkeypatch.setattr(sys, "argv", ["prompts", "--num-prompts", "3"])
    main()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == prompts(3)
