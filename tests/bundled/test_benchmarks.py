"""What benchmarks compute in their own way is what the library computes."""

from __future__ import annotations

import langnorm.abacus
from benchmarks import samples


def test_the_plain_decoder_gives_what_the_engine_gives() -> None:
    """Token by token the same answers; norms and probabilities differ by rounding only."""
    assert samples.check(samples.Decoder(langnorm.abacus.path()), num_problems=2) < 1e-4
