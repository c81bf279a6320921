"""What `langnorm probe causal` and `langnorm probe signal` found on a model, as parts of the evidence.

    langnorm probe causal --model FILE.gguf --tasks GSM8K.jsonl --out causal.md
    langnorm probe signal --model FILE.gguf --tasks GSM8K.jsonl --out signal.html
    python -m benchmarks.real_probes NAME causal.json signal.json

Keeps their figures in `results/real_causal-NAME[-PART].json` and `real_signal-NAME[-PART].json`; `python -m
benchmarks.evidence` writes the page from these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.real_selection import RESULTS
from benchmarks.selection import rounded
from langnorm.evaluation.intervals import change, percent, points
from langnorm.probes.problems import are_direct

_SHOWN = 8  # rows of layers, the last among them
_SUPPRESSED = {
    "high": "high norms",
    "random": "as many random states",
    "same_class": "as many at tokens of the same class",
}


def causal_summary(found: Mapping[str, Any]) -> str:
    """Return what suppression did, as Markdown."""
    check, baseline = found["check"], found["baseline"]
    lines = [
        f"`{found['model']}`, {found['num_tasks']} problems with {len(check['seeds'])} seeds each at temperature "
        f"{check['temperature']:g}; {percent(baseline['right'])} right without suppression:",
        "",
        "| layers | states of high norm | suppressed | right | against none | tokens | cut off |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in found["arms"]:
        layers = f"{arm['layers'][0]} to {arm['layers'][-1]}" if len(arm["layers"]) > 1 else str(arm["layers"][0])
        dose = f"{arm['share_of_states']:.2%}, above the {arm['quantile']:g} quantile"
        for name, row in arm["conditions"].items():
            cells = [layers, dose, _SUPPRESSED[name], percent(row["right"]), points(row["against_none"])]
            cells += [f"{row['tokens']:.0f}", f"{row['cut']:.1%}"]
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for arm in found["arms"]:
        for name, difference in arm["high_against"].items():
            lines.append(f"- Above the {arm['quantile']:g} quantile: {_verdict(_SUPPRESSED[name], difference)}")
    return "\n".join(lines)


def _verdict(control: str, difference: Mapping[str, float]) -> str:
    by = f"({points(difference)} points)"
    if difference["high"] < 0:
        return f"suppressing high norms costs more right answers than suppressing {control} {by}."
    if difference["low"] > 0:
        return f"suppressing high norms costs fewer right answers than suppressing {control} {by}."
    return f"no difference is shown between suppressing high norms and suppressing {control} {by}."


def signal_summary(found: Mapping[str, Any]) -> str:
    """Return what a first look at the norms of a model shows, as Markdown."""
    number, tokens, right, late = found["num_answers"], found["num_tokens"], found["right"], found["late"]
    sinks = found["sinks"]
    lines = [
        f"`{found['model']}`: {number['reasoned']} reasoned answers ({tokens['reasoned']:,} tokens, "
        f"{percent(right['reasoned'])} right, {found['cut']:.1%} cut off) and {number['direct']} direct ones "
        f"({tokens['direct']:,} tokens, {percent(right['direct'])} right). In the late layers "
        f"({found['late_layers'][0]} to {found['late_layers'][-1]}) norms of reasoned answers are "
        f"{change(late['relative_difference'])} over those of direct ones, "
        f"{change(late['relative_difference_on_the_same_tokens'])} on the tokens that direct answers consist of; less "
        f"that of the first half of the layers, {points(late['against_first_half'])} points. Which token it is "
        f"explains {late['share_explained_by_token']:.0%} of the variance of their norms; a right answer has a higher "
        f"mean norm than a wrong one in {_share(late['auroc_of_right_answers'])} of pairs, of all problems together. "
        f"{sinks['number']} tokens of answers are attention sinks.{about_direct(number, tokens)}",
        "",
        "| layer | median norm | reasoned over direct | on the same tokens | explained by the token | surprisal "
        "| position | above Q3 + 1.5 IQR | running |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in shown(found["layers"]):
        cells = [
            str(row["layer"]),
            f"{row['quartiles'][1]:.4g}",
            change(row["relative_difference"]),
            change(row["relative_difference_on_the_same_tokens"]),
            f"{row['share_explained_by_token']:.2f}",
            f"{row['correlation_with_surprisal']['mean']:+.2f}",
            f"{row['correlation_with_position']['mean']:+.2f}",
            *(f"{row['trigger_rates'][rule]:.2%}" for rule in ("iqr", "running")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def about_direct(number: Mapping[str, int], tokens: Mapping[str, int]) -> str:
    """Return a sentence, with a space before it, where answers that were to be given at once were not."""
    if are_direct(*(tokens[kind] / number[kind] for kind in ("reasoned", "direct"))):
        return ""
    return " Asked to answer at once this model does not, so the comparison of the two says little."


def shown(layers: Sequence[Any]) -> Sequence[Any]:
    """Return some of the rows of layers, evenly, and the last."""
    step = -(-(len(layers) - 1) // (_SHOWN - 1)) or 1
    return [*layers[:-1:step], layers[-1]]


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"


def keep(
    kind: str, name: str, found: Mapping[str, Any], summary: Callable[[Mapping[str, Any]], str], part: str | None = None
) -> None:
    """Keep the figures of a model, without its problems, in `results/KIND-NAME[-PART].json`, and print them."""
    kept = {**{key: value for key, value in found.items() if key != "tasks"}, "model": name}
    file = RESULTS / f"{'-'.join(filter(None, (kind, name, part)))}.json"
    file.write_text(json.dumps(rounded(kept)) + "\n", encoding="utf-8")
    print(f"{summary(kept)}\n\n{file}")


def main() -> None:
    """Keep the figures of probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what results call the model, such as coder-0.5b")
    parser.add_argument("figures", type=Path, nargs="+", help="the .json files that the probes wrote")
    parser.add_argument("--part", help="what tells their files from those of other runs on the model")
    args = parser.parse_args()
    for file in args.figures:
        found = json.loads(file.read_text(encoding="utf-8"))
        if "arms" in found:
            keep("real_causal", args.name, found, causal_summary, args.part)
        else:
            keep("real_signal", args.name, found, signal_summary, args.part)


if __name__ == "__main__":
    main()
