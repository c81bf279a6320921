"""What `probe_sae` found as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langnorm.evaluation.intervals import figure, with_bounds
from langnorm.probes.problems import are_direct


def sae_page(report: Mapping[str, Any], title: str) -> str:
    """Return the figures of `probe_sae` as a page that says what they are."""
    numbers, num_held = report["num_tokens"], report["num_held_out"]
    num_problems, num_reasoned, num_direct = report["num_problems"], numbers["reasoned"], numbers["direct"]
    lines = [
        f"# SAE: {title}",
        "",
        f"{num_problems} problems, {num_reasoned} tokens of reasoned and {num_direct} of direct answers.",
        f"SAEs are trained, and features chosen, on {num_problems - num_held} of the problems. Mean norms are of all",
        f"problems, everything else is of the other {num_held}; intervals are 95 % bootstrap intervals over problems.",
        "Reasoning features are more active on the reasoned than on the direct answer to a problem.",
        *_about_answers(num_reasoned, num_direct),
        "",
        "| layer | explained variance | active | dead | mean norm, reasoned | direct | activations above the bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, norms in zip(report["layers"], report["norms"], strict=True):
        held, bound = row["held_out"], row["bound"]
        num_above = bound["above_bound_on_states"] + bound["above_bound_on_norms"]
        cells = [
            str(row["layer"]),
            figure(held["explained_variance"], ".3f"),
            f"{held['num_active']:.1f}",
            f"{held['share_dead']:.1%}",
            with_bounds(norms["reasoned"], ".4g"),
            with_bounds(norms["direct"], ".4g"),
            f"{num_above} of {bound['num_activations']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Summed activations of features, and their rank correlation with the norm over tokens of reasoned answers: as",
        "they are, and of states that were scaled to one norm, whose activations the norm does not bound.",
        "",
        "| layer | features | number | reasoned | direct | correlation | direction only |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["layers"]:
        for name in ("reasoning", "direct", "other"):
            if name not in row:
                continue
            raw, direction = row[name]["raw"], row[name]["direction_only"]
            cells = [str(row["layer"]), name, str(row[name]["num_features"])]
            cells += [with_bounds(raw["reasoned"], ".4g"), with_bounds(raw["direct"], ".4g")]
            cells += [figure(kind["spearman"], "+.2f") for kind in (raw, direction)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _about_answers(num_reasoned: int, num_direct: int) -> list[str]:
    """Return what is to be said where direct answers, which are as many as reasoned ones, are none."""
    if are_direct(num_reasoned, num_direct):
        return []
    return ["Asked to answer at once, this model does not, and a comparison of the two says little."]
