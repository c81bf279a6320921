"""What benchmarks compute in their own way is what the library computes."""

from __future__ import annotations

import json
from pathlib import Path

import langnorm.abacus
from benchmarks import packing, samples

ROOT = Path(__file__).parents[2]


def test_the_plain_decoder_gives_what_the_engine_gives() -> None:
    """Token by token the same answers; norms and probabilities differ by rounding only."""
    assert samples.check(samples.Decoder(langnorm.abacus.path()), num_problems=2) < 1e-4


def test_the_table_of_packed_weights_is_what_was_measured(tmp_path: Path) -> None:
    """Published anew from the stored measurement, the README stays as it is."""
    readme = ROOT / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")
    measured = json.loads((ROOT / "benchmarks" / "results" / "packing.json").read_text(encoding="utf-8"))

    packing.publish(measured, copy)

    assert copy.read_text(encoding="utf-8") == readme.read_text(encoding="utf-8")
