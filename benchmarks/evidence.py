"""Puts what was measured on real models into the page of evidence: `python -m benchmarks.evidence`.

Each part is written from a file of results, which another script has measured; the page says which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import real_interventions, real_probes, real_sae_summary, real_selection, real_steps
from benchmarks.documents import put

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence.md"
RESULTS = ROOT / "benchmarks" / "results"


PARTS: Mapping[str, Callable[[Any], str]] = {
    "real-": real_selection.summary,
    "real_steps-": real_steps.summary,
    "real_interventions-": real_interventions.summary,
    "real_causal-": real_probes.causal_summary,
    "real_signal-": real_probes.signal_summary,
    "real_sae-": real_sae_summary.summary,
}
"""What writes a part, by how its file of results begins."""


def parts() -> dict[str, str]:
    """Return the parts of the page by their marks."""
    return {
        file.stem: write(json.loads(file.read_text(encoding="utf-8")))
        for prefix, write in PARTS.items()
        for file in sorted(RESULTS.glob(f"{prefix}*.json"))
    }


def main() -> None:
    """Write the page."""
    for mark, text in parts().items():
        put(PAGE, mark, text)


if __name__ == "__main__":
    main()
