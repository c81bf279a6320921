"""What selection sees of sampled answers: scores of the library and others that were tried, answers, correctness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.messages import convert_to_messages

from benchmarks.samples import MAX_TOKENS, Sampled, load
from langnorm import ChatLangNorm, NormTrace
from langnorm.chat.results import build_message
from langnorm.engines.requests import Completion, TokenLogprob
from langnorm.norms.relative import AnswerNorms, relative_norms
from langnorm.scores.registry import SCORES, per_layer
from langnorm.scores.samples import Sample, sample_of
from langnorm.selection.statements import stated_number
from langnorm.text.detokenizer import decode_pieces
from langnorm.text.readers import parse_answer

NUM_FOR_TOKENS = 50  # problems of the development split from which the usual norm of each token is taken


@dataclass(frozen=True, slots=True)
class Candidates:
    """All samples of one problem at one temperature, in the order of sampling (N of them).

    Attributes:
        values: Of each score (N, L), or (N, 1) for one without layers; NaN where there is none.
        answers: As the library reads them.
        is_right: Whether they are right (N,).
        tokens: Numbers of tokens (N,).
        samples: What scores see of them.
    """

    values: dict[str, np.ndarray]
    answers: list[str | None]
    is_right: np.ndarray
    tokens: np.ndarray
    samples: list[Sample]


class Reader:
    """Makes of what the plain decoder sampled what a message of ChatLangNorm would carry.

    Args:
        usual: Mean and standard deviation (vocabulary, layers) of the logarithm of each token's norm.
    """

    def __init__(self, usual: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        self.chat = ChatLangNorm(norms="tokens", logprobs=True)
        self.engine = self.chat.loaded_engine()
        self.usual = usual

    def samples(self, prompt: Any, drawn: list[Sampled]) -> tuple[list[Sample], list[str], list[NormTrace]]:
        """Return what scores see of the answers to a prompt, the texts after the reasoning, and the traces."""
        call = self.chat._prepare(convert_to_messages(list(prompt)), None, {})
        assert call.recording
        samples, texts, traces = [], [], []
        for sampled in drawn:
            ids = sampled.ids.tolist()
            pieces = decode_pieces(self.engine.tokenizer, ids)
            logprobs = sampled.logprobs.tolist()
            completion = Completion(
                token_ids=ids,
                pieces=pieces,
                finish_reason="stop" if len(ids) < MAX_TOKENS else "length",
                norms=sampled.norms[:, list(call.recording.layers)].tolist(),
                logprobs=[TokenLogprob(value) for value in logprobs],
            )
            message = build_message(call, completion, parse_answer(call.new_reader(), pieces))
            trace = NormTrace.from_message(message)
            samples.append(sample_of(trace, logprobs, pieces))
            texts.append(message.text if completion.finish_reason == "stop" else "")
            traces.append(trace)
        answers = [
            AnswerNorms(sampled.ids.tolist(), sample.norms, sample.sinks)
            for sampled, sample in zip(drawn, samples, strict=True)
        ]
        relative = relative_norms(answers, call.recording.layers)
        samples = [replace(sample, relative_norms=rows) for sample, rows in zip(samples, relative, strict=True)]
        return samples, texts, traces

    def values(self, sampled: Sampled, sample: Sample, trace: NormTrace) -> dict[str, np.ndarray]:
        """Return all scores of one answer, those of the library under their names."""
        every = tuple(range(sampled.norms.shape[1]))
        whole = replace(sample, norms=sampled.norms.tolist(), layers=every, thresholds=None, relative_norms=None)
        top = replace(whole, norms=sampled.norms[:, -4:-1].tolist(), layers=every[-4:-1])
        scores = {name: per_layer(name, sample) for name, score in SCORES.items() if not score.needs_reductions}
        scores["quiet_logprob, all layers"] = per_layer("quiet_logprob", whole)
        scores["growth, layers 8 to 10"] = per_layer("growth", top)
        tried: dict[str, Callable[[], Any]] = {
            "weakest step's logprob": lambda: _weakest(sampled.logprobs[:, None], sample)[0],
            "intensity": lambda: np.nan if trace.intensity is None else trace.intensity,
            "share of steps that are not low": lambda: 1 - len(trace.low_steps or ()) / max(1, len(trace.steps)),
        }
        if self.usual is not None:
            ids, late = sampled.ids[:-1], list(sample.layers)
            mean, deviation = self.usual
            relative = ((np.log(sampled.norms) - mean[ids]) / deviation[ids])[:, late]
            is_numeral = sample.is_numeral[:-1]
            tried |= {
                "norm per token id": lambda: relative.mean(axis=0),
                "norm per token id, weakest step": lambda: _weakest(relative, sample),
                "norm per token id, numerals": lambda: relative[is_numeral if is_numeral.any() else ...].mean(axis=0),
            }
        return scores | {name: np.asarray(function()) for name, function in tried.items()}

    def candidates(self, prompt: Any, answer: str | None, drawn: list[Sampled]) -> Candidates:
        """Return all there is of the samples of one problem at one temperature."""
        samples, texts, traces = self.samples(prompt, drawn)
        scores = [self.values(*of_one) for of_one in zip(drawn, samples, traces, strict=True)]
        answers = [stated_number(text) for text in texts]
        return Candidates(
            values={name: np.stack([np.atleast_1d(of_sample[name]) for of_sample in scores]) for name in scores[0]},
            answers=answers,
            is_right=np.array([each == answer for each in answers]),
            tokens=np.array([len(sampled.ids) for sampled in drawn]),
            samples=samples,
        )


def _weakest(values: np.ndarray, sample: Sample) -> np.ndarray:
    """Return the lowest mean of a step, per column of (tokens, columns)."""
    means = [values[start:end].mean(axis=0) for start, end in sample.steps if len(values[start:end])]
    lowest: np.ndarray = np.min(means or [values.mean(axis=0)], axis=0)
    return lowest


def usual_norms(files: list[Path], vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (vocabulary, layers) of the logarithm of the norms of each token."""
    samples = [sampled for file in files for of_one in load(file).values() for sampled in of_one]
    num_layers = samples[0].norms.shape[1]
    sums, squares = np.zeros((2, vocabulary, num_layers))
    counts = np.zeros((vocabulary, 1))
    for sampled in samples:
        logs = np.log(sampled.norms)
        np.add.at(sums, sampled.ids[:-1], logs)
        np.add.at(squares, sampled.ids[:-1], logs**2)
        np.add.at(counts, sampled.ids[:-1], 1)
    mean = sums / np.maximum(counts, 1)
    return mean, np.sqrt(np.maximum(squares / np.maximum(counts, 1) - mean**2, 1e-6))
