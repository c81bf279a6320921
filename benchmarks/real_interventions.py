"""Do interventions make more answers of a real model right? What `langnorm eval` has kept, as a part of the evidence.

    langnorm eval --model FILE --task GSM8K.jsonl --temperature 0 --out FOLDER --methods recursion,steering,block
    python -m benchmarks.real_interventions NAME GSM8K.jsonl FOLDER

Of each method that is in the folder, it keeps for each question whether the answer is right, whether it was cut off and
its tokens, and how many states were acted on. `python -m benchmarks.evidence` writes the page from that.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.messages import messages_from_dict

from benchmarks.real_probes import keep
from langnorm.evaluation.intervals import points, with_bounds
from langnorm.evaluation.methods import known_methods
from langnorm.evaluation.report import MethodResult, Scored, build_report
from langnorm.evaluation.tasks import Task, load_task
from langnorm.trace import NormTrace

_LEVEL = 0.05  # of the test
_SAMPLES = 8  # of selections, which none of these methods is


def collected(task: Task, folder: Path) -> dict[str, Any]:
    """Return what became of each question by each method of an evaluation, in plain JSON types.

    Raises:
        ValueError: A method has no answer to some question.
    """
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    described = {method["name"]: method["description"] for method in report["methods"]}
    known = known_methods(_SAMPLES)
    methods = {}
    for name in dict.fromkeys([*described, *known]):  # the report has the methods of the last call alone
        if (folder / f"{name}.jsonl.gz").exists():
            own = {} if name in known else {"description": described[name]}
            methods[name] = own | _of_method(task, folder / f"{name}.jsonl.gz")
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    settings = {name: work[name] for name in ("temperature", "max_tokens", "batch_size", "dtype", "weights")}
    return {"num_questions": len(task.items), "settings": settings, "methods": methods}


def _of_method(task: Task, file: Path) -> dict[str, Any]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = {row["item"]: row["answers"] for row in map(json.loads, lines)}
    if missing := [number for number in range(len(task.items)) if number not in rows]:
        msg = f"{file} has no answer to {len(missing)} questions, such as number {missing[0]}. Finish `langnorm eval`."
        raise ValueError(msg)
    right, cut, tokens, acted, states = [], [], [], 0, 0
    for number, item in enumerate(task.items):
        (message,) = messages_from_dict(rows[number]["messages"])
        right.append(task.read(message.text) == item.answer)
        cut.append(message.response_metadata["finish_reason"] == "length")
        trace = NormTrace.from_message(message)
        tokens.append(trace.tokens)
        acted += _num_acted_on(trace)
        states += trace.tokens * len(trace.layers)
    return {
        "right": "".join(str(int(is_right)) for is_right in right),
        "cut": [number for number, is_cut in enumerate(cut) if is_cut],
        "tokens": tokens,
        "share_of_states": acted / states,
    }


def _num_acted_on(trace: NormTrace) -> int:
    """Return how many states an intervention acted on: by its report, or, of one that acts on all, one a token."""
    if trace.steering:
        return len(trace.steering["injections"])
    report = trace.recursion or trace.suppression
    if not report:
        return 0
    if report["acted_on"] is None:
        return trace.tokens
    return sum(map(len, report["acted_on"].values()))


def summary(found: Mapping[str, Any]) -> str:
    """Return what the interventions did, as Markdown."""
    known, scored = known_methods(_SAMPLES), {}
    for name, of_method in found["methods"].items():
        cut = set(of_method["cut"])
        rows = [
            Scored(right=float(digit), is_cut=float(number in cut), tokens=float(tokens), seconds=0.0)
            for number, (digit, tokens) in enumerate(zip(of_method["right"], of_method["tokens"], strict=True))
        ]
        scored[name] = (known[name].description if name in known else of_method["description"], rows)
    report = build_report("", "", _SAMPLES, scored)
    settings = found["settings"]
    heat = "greedy" if float(settings["temperature"]) == 0 else f"temperature {settings['temperature']}"
    limit = "" if settings["max_tokens"] == "None" else f"at most {settings['max_tokens']} tokens, "
    lines = [
        f"`{found['model']}`, {found['num_questions']} questions, {heat}, {limit}{settings['dtype']}:",
        "",
        "| method | right | points over one answer | p | cut off | tokens | acts on | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in report.methods:
        right = with_bounds(method.accuracy, ".1f", times=100, unit=" %")
        difference = "" if method.difference is None else points(method.difference)
        p_value = "" if method.p_value is None else f"{method.p_value:.2g}"
        share = found["methods"][method.name]["share_of_states"]
        acts = "every token" if method.name == "block" else f"{share:.2%} of states" if share else ""
        cells = [method.name, right, difference, p_value, f"{method.share_cut:.1%}", f"{method.tokens:.0f}", acts]
        lines.append(f"| {' | '.join([*cells, method.description])} |")
    return "\n".join([*lines, "", *map(_verdict, report.methods[1:])])


def _verdict(method: MethodResult) -> str:
    """Return what was shown of a method, in a sentence: by its interval, and by McNemar's test, which is exact."""
    name = method.name
    _, low, high = method.difference or (0.0, 0.0, 0.0)
    if low == high == 0:
        return f"- `{name}`: the same questions are right as without."
    span = f"the interval goes from {100 * low:+.1f} to {100 * high:+.1f} points"
    if low <= 0 <= high:
        return f"- `{name}`: no difference is shown; {span}."
    if method.p_value is not None and method.p_value >= _LEVEL:
        few = f"too few answers differ (p is {method.p_value:.2g})"
        return f"- `{name}`: no difference is shown, for {few}, although {span}."
    return f"- `{name}` makes {'more' if low > 0 else 'fewer'} answers right."


def main() -> None:
    """Keep what an evaluation found in `results/real_interventions-NAME[-PART].json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what results call the model, such as coder-0.5b")
    parser.add_argument("task", help="the questions, as `langnorm eval --task` took them")
    parser.add_argument("folder", type=Path, help="the folder of `langnorm eval --out`")
    parser.add_argument("--num-problems", type=int, help="as `langnorm eval` took it")
    parser.add_argument("--part", help="what tells its file from that of another evaluation of the model")
    args = parser.parse_args()
    task = load_task(args.task, num_problems=args.num_problems)
    keep("real_interventions", args.name, collected(task, args.folder), summary, args.part)


if __name__ == "__main__":
    main()
