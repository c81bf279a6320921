"""What benchmarks compute in their own way is what the library computes."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

import langnorm.abacus
from benchmarks import llamacpp, packing, samples

ROOT = Path(__file__).parents[2]


def test_the_plain_decoder_gives_what_the_engine_gives() -> None:
    """Token by token the same answers; norms and probabilities differ by rounding only."""
    assert samples.check(samples.Decoder(langnorm.abacus.path()), num_problems=2) < 1e-4


@pytest.mark.parametrize("measuring", [packing, llamacpp], ids=["packing", "llamacpp"])
def test_published_tables_are_what_was_measured(tmp_path: Path, measuring: ModuleType) -> None:
    """Published anew from the stored measurement, the README stays as it is."""
    readme = ROOT / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")
    stored = measuring.__name__.rpartition(".")[2] + ".json"
    measured = json.loads((ROOT / "benchmarks" / "results" / stored).read_text(encoding="utf-8"))

    measuring.publish(measured, copy)

    assert copy.read_text(encoding="utf-8") == readme.read_text(encoding="utf-8")
