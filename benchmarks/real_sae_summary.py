"""What sparse autoencoders of a model's states show, as parts of the evidence: those of `real_sae.py` and of a command.

    langnorm probe sae --model FILE.gguf --tasks GSM8K.jsonl --out sae
    python -m benchmarks.real_sae_summary NAME sae/report.json

Keeps the figures of the command in `results/real_sae-NAME.json`; `python -m benchmarks.evidence` writes the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.real_probes import about_direct, keep, shown
from langnorm.evaluation.intervals import UNKNOWN, change, with_bounds
from langnorm.norms.layers import select_layers

_OF_COMMAND = "answers"  # what a report of the command has, and one of `real_sae.py` has not


def summary(found: Mapping[str, Any]) -> str:
    """Return what the autoencoders of a model say, as Markdown."""
    deep = _deep(found)
    held, bound = deep["held_out"], deep["bound"]
    return "\n".join(
        [
            f"{_how(found)}A top-{deep['k']} autoencoder of the states after layer {deep['layer']}, trained on "
            f"{deep['training_states']['num_states']:,} states of sampled answers and tried on "
            f"{held['num_states']:,} of {found['num_held_out']} other problems, explains "
            f"{held['explained_variance']:.1%} of the variance. Of {bound['num_activations']:,} activations "
            f"{bound['above_bound_on_states']} are above the bound that the norm sets; the largest comes to "
            f"{bound['largest_share_of_bound_on_states']:.0%} of it. {_over_tokens(deep)}"
            f"{_over_layers(found['over_layers'])}{_about_answers(found)}",
            "",
            *_table(found),
        ]
    )


def _deep(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures of the one SAE that the text is about: that of the deepest late layer."""
    if _OF_COMMAND not in found:
        sae = found["saes"][-1]
        return {**sae, "on_the_same_tokens": sae["features_on_the_same_tokens"]}
    deepest = select_layers("late", found["num_layers"])[-1]
    return next(row for row in found["layers"] if row["layer"] == deepest)


def _how(found: Mapping[str, Any]) -> str:
    """Return how the answers were drawn and the SAEs trained, where the report is of the command."""
    if _OF_COMMAND not in found:
        return ""
    answers, training, tokens = found["answers"], found["training"], found["num_tokens"]
    widths = {row["num_features"] for row in found["layers"]}
    return (
        f"`{found['model']}`, {found['num_problems']} problems at temperature {answers['temperature']:g}, at most "
        f"{answers['max_tokens']} tokens: {tokens['reasoned']:,} tokens of reasoned and {tokens['direct']:,} of direct "
        f"answers. Autoencoders of {max(widths):,} features, {training['num_steps']:,} steps of "
        f"{training['batch_size']:,} states each. "
    )


def _over_tokens(deep: Mapping[str, Any]) -> str:
    """Return how the norm and the activation of features go together over tokens."""
    groups, kind = deep["on_the_same_tokens"], "reasoning"
    words = "reasoning features"
    if kind not in groups:
        words, kind = "features, none of which is a reasoning one,", "other"
    raw, direction = (_correlation(groups[kind], name) for name in ("raw", "direction_only"))
    return (
        f"Over tokens, the norm and the summed activation of {groups[kind]['num_features']:,} {words} have a rank "
        f"correlation of {raw}, and {direction} once all states are scaled to one norm."
    )


def _over_layers(correlations: Mapping[str, float | None]) -> str:
    raw, own = correlations["raw"], correlations["in_units_of_the_layer"]
    if raw is None or own is None:
        return ""
    return (
        f" Over layers, norm and reasoning activation have a rank correlation of {raw:.2f}, as both grow with depth, "
        f"and of {own:.2f} in units of each layer's own norm."
    )


def _about_answers(found: Mapping[str, Any]) -> str:
    if _OF_COMMAND not in found:
        return ""
    return about_direct({"reasoned": 1, "direct": 1}, found["num_tokens"])  # as many answers are of either kind


def _table(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table by layer."""
    lines = [
        "Reasoned answers beside direct ones to the same problems, by layer: norms on the tokens that direct answers "
        "consist of, summed activations of reasoning features on all tokens, and their rank correlation with the norm "
        "over tokens of reasoned answers, as they are and once all states are scaled to one norm.",
        "",
        "| layer | explained variance | norms, reasoned over direct | reasoning features, reasoned less direct | "
        "correlation | direction only |",
        "|---|---|---|---|---|---|",
    ]
    norms = {row["layer"]: row["relative_difference"] for row in found["norms_on_the_same_tokens"]}
    for row in shown(found["layers"]):
        layer, reasoning = row["layer"], row.get("reasoning")
        cells = [str(layer), f"{row['held_out']['explained_variance']:.2f}", change(norms[layer])]
        if reasoning is None:
            cells += [UNKNOWN] * 3
        else:
            cells.append(with_bounds(reasoning["raw"]["difference"], "+.0f"))
            cells += [_correlation(reasoning, kind) for kind in ("raw", "direction_only")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _correlation(of_features: Mapping[str, Any], kind: str) -> str:
    return with_bounds(of_features[kind]["spearman_within_problems"], "+.2f")


def main() -> None:
    """Keep the figures of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what results call the model, such as smollm2-135m")
    parser.add_argument("report", type=Path, help="the report.json that the command wrote")
    args = parser.parse_args()
    keep("real_sae", args.name, json.loads(args.report.read_text(encoding="utf-8")), summary)


if __name__ == "__main__":
    main()
