"""Puts what was measured on real models into the page of evidence: `python -m benchmarks.evidence`.

Each part is written from a file of results, which another script has measured; the page says which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import real_interventions, real_probes, real_selection, real_steps
from benchmarks.documents import put

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence.md"
RESULTS = ROOT / "benchmarks" / "results"
_EVERY = 4  # layers of which one is shown


def sae_report(found: Mapping[str, Any]) -> str:
    """Return what an SAE of a model says, as Markdown."""
    sae, layers = found["saes"][-1], found["layers"]
    held, bound = sae["held_out"], sae["bound"]
    shown = [*range(0, len(layers), _EVERY), len(layers) - 1]
    reasoning = sae["features_on_the_same_tokens"]["reasoning"]
    lines = [
        f"A top-{sae['k']} autoencoder of the states after layer {sae['layer']}, trained on "
        f"{sae['training_states']['num_states']:,} states of sampled answers and tried on {held['num_states']:,} of "
        f"{found['num_held_out']} other problems, explains {held['explained_variance']:.1%} of the variance. Of "
        f"{bound['num_activations']:,} activations {bound['above_bound_on_states']} are above the bound that the norm "
        f"sets; the largest comes to {bound['largest_share_of_bound_on_states']:.0%} of it. Over tokens, the norm and "
        f"the summed activation of reasoning features have a rank correlation of {_interval(reasoning, 'raw')}, and "
        f"{_interval(reasoning, 'direction_only')} once all states are scaled to one norm. Over layers, norm and "
        f"reasoning activation have a rank correlation of {found['over_layers']['raw']:.2f}, as both grow with depth, "
        f"and of {found['over_layers']['in_units_of_the_layer']:.2f} in units of each layer's own norm.",
        "",
        "Reasoned answers beside direct ones to the same problems, as many tokens of both, by layer:",
        "",
        "| layer | explained variance | norms, reasoned over direct | reasoning features, reasoned less direct |",
        "|---|---|---|---|",
    ]
    for number in shown:
        layer, norms = layers[number], found["norms_on_the_same_tokens"][number]
        difference = layer["reasoning"]["raw"]["difference"]
        mean, low, high = (100 * norms["relative_difference"][name] for name in ("mean", "low", "high"))
        lines.append(
            f"| {number} | {layer['held_out']['explained_variance']:.2f} | {mean:+.1f} % ({low:+.1f} to {high:+.1f}) | "
            f"{difference['mean']:+.0f} ({difference['low']:+.0f} to {difference['high']:+.0f}) |"
        )
    return "\n".join(lines)


def _interval(of_features: Mapping[str, Any], kind: str) -> str:
    within = of_features[kind]["spearman_within_problems"]
    return f"{within['mean']:+.2f} ({within['low']:+.2f} to {within['high']:+.2f})"


PARTS: Mapping[str, Callable[[Any], str]] = {
    "real-": real_selection.summary,
    "real_steps-": real_steps.summary,
    "real_interventions-": real_interventions.summary,
    "real_causal-": real_probes.causal_summary,
    "real_signal-": real_probes.signal_summary,
    "real_sae-": sae_report,
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
