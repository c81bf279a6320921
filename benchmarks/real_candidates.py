"""What selection sees of the answers of real models that `real_samples.py` drew, as the library would see them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.candidates import Candidates
from benchmarks.real_decoder import TOKEN_VALUES
from benchmarks.real_models import fetch
from benchmarks.real_samples import NUM_LATE, load
from langnorm.norms.layers import LayerSelection, select_layers
from langnorm.norms.thresholds import IQRThreshold, fence
from langnorm.norms.token_sums import TokenSums
from langnorm.norms.token_table import TokenTable
from langnorm.reductions import SETTLED_WITHIN, Distribution, Reductions
from langnorm.scores.registry import SCORES, per_layer
from langnorm.scores.samples import Sample
from langnorm.selection.statements import stated_number
from langnorm.text.detokenizer import decode_pieces
from langnorm.text.reasoning import Segment
from langnorm.text.steps import split_steps

FOLDER = Path(__file__).resolve().parent.parent / "build" / "real-samples"
"""Where samples of a model lie: a folder `MODEL-train` and one `MODEL-test`. Their prompts are in `prompts`, those of
samples from another file in `prompts.json` beside them."""

Split = Literal["train", "test"]

_QUARTILES = (0.25, 0.75)


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer of T tokens of a model with N layers.

    Attributes:
        problem: Number of the problem in its split.
        ids: Its tokens (T,).
        pieces: Their texts.
        distribution: What was kept of each of them.
        norms: Norms (T - 1, last layers) of the last layers.
        means: Means (4, N) over the answer: norm, relative update, cosine of layers, cosine of tokens, of each layer.
        coe: `coe_r` and `coe_c`.
        lens: Divergence (T,) of an earlier layer's distribution from the final one, in bits.
        is_cut: Whether it ended at the limit of tokens.
        stated: The number that it states, or None.
        is_right: Whether that is the right one.
    """

    problem: int
    ids: np.ndarray
    pieces: list[str]
    distribution: Distribution
    norms: np.ndarray
    means: np.ndarray
    coe: np.ndarray
    lens: np.ndarray
    is_cut: bool
    stated: str | None
    is_right: bool


def usual_norms(answers: Sequence[Answer]) -> TokenTable:
    """Return the usual norm of each token id in the late layers, from some answers."""
    num_layers = answers[0].means.shape[1]
    late = select_layers("late", num_layers)
    sums = TokenSums(late)
    for answer in answers:
        sums.update(answer.ids, answer.norms[:, columns_of(late, num_layers)])
    table = sums.table()
    assert table is not None, "answers have tokens"
    return table


class Reader:
    """Reads what was sampled of a model.

    Args:
        model: Its name in `benchmarks.real_models`.
    """

    def __init__(self, model: str) -> None:
        from langnorm.engines.transformers.loading import load_tokenizer

        self.model = model
        self.tokenizer: Any = load_tokenizer(str(fetch(model)), {})

    @cache  # noqa: B019 (there is one reader a run)
    def answers(self, split: Split) -> list[Answer]:
        """Return all answers of a split, those to one problem in a row."""
        folder = FOLDER / f"{self.model}-{split}"
        beside, common = folder / "prompts.json", FOLDER / "prompts" / f"{split}.json"
        prompts = json.loads((beside if beside.exists() else common).read_text())
        ends = {*prompts["end_ids"]}
        answers = []
        for batch in load(folder):
            bounds = np.cumsum(batch["lengths"])[:-1]
            names = ("ids", "values", "lens", "norms")
            of_tokens = zip(*(np.split(batch[name], bounds) for name in names), strict=True)
            for place, (ids, values, lens, norms) in enumerate(of_tokens):
                problem = int(batch["first"]) + place // int(batch["n"])
                is_cut = int(ids[-1]) not in ends
                kept = ids.tolist() if is_cut else ids.tolist()[:-1]
                pieces = decode_pieces(self.tokenizer, kept) + ([] if is_cut else [""])
                stated = None if is_cut else stated_number("".join(pieces))
                answer = prompts["problems"][problem]["answer"]
                answers.append(
                    Answer(
                        problem=problem,
                        ids=ids,
                        pieces=pieces,
                        distribution=_distribution(values),
                        norms=norms[:-1].astype(np.float32),
                        means=batch["means"][place].astype(np.float64),
                        coe=batch["coe"][place].astype(np.float64),
                        lens=lens[:, 0].astype(np.float64),
                        is_cut=is_cut,
                        stated=stated,
                        is_right=stated == (stated_number(answer) or answer),
                    )
                )
        return answers

    def candidates(self, split: Split) -> list[Candidates]:
        """Return the answers to each problem with all scores.

        What needs a usual norm or a threshold takes it from the train split; for problems of that split, from its other
        half.
        """
        train = self.answers("train")
        halves = [[answer for answer in train if answer.problem % 2 == half] for half in (0, 1)]
        usual = [usual_norms(train)] * 2 if split == "test" else [usual_norms(half) for half in reversed(halves)]
        taus = [_thresholds(train)] * 2 if split == "test" else [_thresholds(half) for half in reversed(halves)]
        by_problem: dict[int, list[Answer]] = {}
        for answer in self.answers(split):
            by_problem.setdefault(answer.problem, []).append(answer)
        return [
            _candidates(answers, usual[number % 2], taus[number % 2]) for number, answers in sorted(by_problem.items())
        ]


def _distribution(values: np.ndarray) -> Distribution:
    columns = dict(zip(TOKEN_VALUES, values.T.astype(np.float64), strict=True))
    return Distribution(
        entropy=columns["entropy"],
        self_certainty=columns["self_certainty"],
        top5_logprob=columns["top5"],
        top20_logprob=columns["top20"],
        top5_mass=columns["mass5"],
        logprob=columns["logprob"],
    )


def _thresholds(answers: Sequence[Answer]) -> np.ndarray:
    """Return the paper's adaptive threshold of each of the last layers."""
    quartiles = np.quantile(np.concatenate([answer.norms for answer in answers]), _QUARTILES, axis=0)
    return np.array([fence(IQRThreshold(), first, third) for first, third in quartiles.T])


def _candidates(answers: list[Answer], usual: TokenTable, tau: np.ndarray) -> Candidates:
    num_layers = answers[0].means.shape[1]
    samples = [_sample(answer, "late", num_layers, tau, usual) for answer in answers]
    deep = [_sample(answer, "deep", num_layers, tau, usual) for answer in answers]
    readable = [
        name
        for name, score in SCORES.items()
        if not (score.needs_updates or score.needs_mean_states or score.needs_lens)
    ]
    values = {name: np.stack([np.atleast_1d(per_layer(name, one)) for one in samples]) for name in readable}
    for name in ("mean", "tail", "numeral_norm", "token_norm"):
        values[f"{name}, deep"] = np.stack([per_layer(name, one) for one in deep])
    late = list(select_layers("late", num_layers))
    means = np.stack([answer.means for answer in answers])
    values["relative_update"], values["update_cosine"] = means[:, 1, late], means[:, 2, late]
    values["minus update_cosine"] = -values["update_cosine"]
    values["coe_r"], values["coe_c"] = np.stack([answer.coe for answer in answers]).T[..., None]
    distances = (values["coe_r"] - values["coe_r"].T) ** 2
    values["consensus"] = -distances.sum(axis=1, keepdims=True)
    values["settling"] = np.array([[np.mean(answer.lens > SETTLED_WITHIN)] for answer in answers])
    values |= {f"mean norm, layer {layer}": means[:, 0, [layer]] for layer in range(num_layers)}
    return Candidates(
        values=values,
        answers=[answer.stated for answer in answers],
        is_right=np.array([answer.is_right for answer in answers]),
        tokens=np.array([len(answer.ids) for answer in answers]),
        samples=samples,
    )


def columns_of(layers: Sequence[int], num_layers: int) -> list[int]:
    """Return where layers are among the last `NUM_LATE`."""
    return [layer - num_layers + NUM_LATE for layer in layers]


def _sample(answer: Answer, layers: LayerSelection, num_layers: int, tau: np.ndarray, usual: TokenTable) -> Sample:
    """Return what scores see of an answer whose last `NUM_LATE` layers were kept."""
    selected = select_layers(layers, num_layers)
    columns = columns_of(selected, num_layers)
    norms = answer.norms[:, columns]
    steps = split_steps([Segment(part="answer", text=text, token=i) for i, text in enumerate(answer.pieces) if text])
    return Sample(
        norms=norms.tolist(),
        relative_norms=usual.select(selected).relative(answer.ids, norms).tolist(),
        layers=selected,
        thresholds=tau[columns].tolist(),
        steps=[(step.start, step.end) for step in steps],
        logprobs=answer.distribution.logprob.tolist(),
        texts=answer.pieces,
        reductions=Reductions(distribution=answer.distribution),
    )
