"""What scores see of a response: its norms, its probabilities, its states, and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from langnorm.errors import OptionError
from langnorm.norms.relative import AnswerNorms, relative_norms
from langnorm.reductions import Distribution, Lens, Reductions

if TYPE_CHECKING:
    from langnorm.norms.baseline import Baseline
    from langnorm.trace import NormTrace

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a score sees of one response.

    Attributes:
        norms: R rows, one per token that was run, of L norms.
        layers: The L indices of the layers that were read.
        thresholds: One tau per layer, or None when there are none.
        sinks: Indices of the rows of attention-sink tokens. No score of norms sees them.
        steps: The [start, end) token ranges of the steps; row i is token i.
        logprobs: Log-probability of every generated token, or None when it was not recorded.
        texts: Text of every generated token, or None when it was not kept.
        reductions: What was kept of its distributions and states beside norms.
        relative_norms: Like `norms`, relative to the usual norms of the same tokens (see `TokenTable`), or None when
            nobody knows the tokens.
        num_tokens: Number of all generated tokens, or None where only those count that something else was kept of.

    Raises:
        OptionError: The norms or thresholds do not fit the layers, a sink is not a row, the log-probabilities do not
            fit the rows or the texts, or the texts, reductions or relative norms do not fit the rows.
    """

    norms: Sequence[Sequence[float]]
    layers: Sequence[int]
    thresholds: Sequence[float] | None = None
    sinks: Sequence[int] = ()
    steps: Sequence[tuple[int, int]] = ()
    logprobs: Sequence[float] | None = None
    texts: Sequence[str] | None = None
    reductions: Reductions = field(default_factory=Reductions)
    relative_norms: Sequence[Sequence[float]] | None = None
    num_tokens: int | None = None

    def __post_init__(self) -> None:
        num_layers = len(self.layers)
        if any(len(row) != num_layers for row in self.norms):
            msg = f"A row of `norms` does not fit the layers. Give `{num_layers}` norms in each, one per layer."
            raise OptionError(msg)
        if self.thresholds is not None and (len(self.thresholds) != num_layers or not is_finite(self.tau)):
            msg = f"`thresholds={self.thresholds!r}` do not fit. Give `{num_layers}` finite numbers, one per layer."
            raise OptionError(msg)
        if any(not 0 <= sink < len(self.norms) for sink in self.sinks):
            msg = f"`sinks={self.sinks!r}` are not all rows. Use indices from 0 and below `{len(self.norms)}`."
            raise OptionError(msg)
        for name, values in (("logprobs", self.logprobs), ("texts", self.texts)):
            if values is not None and len(values) < len(self.norms):
                msg = f"There are `{len(values)}` `{name}`. Give one per token: `{len(self.norms)}` rows or more."
                raise OptionError(msg)
        if self.logprobs is not None and self.texts is not None and len(self.logprobs) != len(self.texts):
            msg = f"There are `{len(self.logprobs)}` `logprobs` and `{len(self.texts)}` `texts`. Give one per token."
            raise OptionError(msg)
        relative = self.norms if self.relative_norms is None else self.relative_norms
        if len(relative) != len(self.norms) or any(len(row) != num_layers for row in relative):
            msg = f"The `relative_norms` do not fit. Give `{len(self.norms)}` rows of `{num_layers}`, like `norms`."
            raise OptionError(msg)
        updates, distribution = self.reductions.updates, self.reductions.distribution
        shape = (len(self.norms), num_layers)
        if updates is not None and updates.norms.shape != shape:
            msg = f"The `updates` of the reductions are of `{updates.norms.shape}` norms. Give those of `{shape}`."
            raise OptionError(msg)
        self._check_of_tokens("distribution", None if distribution is None else len(distribution.entropy))
        lens = self.reductions.lens
        self._check_of_tokens("lens", None if lens is None else len(lens.settling))

    def _check_of_tokens(self, name: str, num_rows: int | None) -> None:
        """Raise an error where reductions do not have one row per token."""
        if num_rows is None:
            return
        if self.texts is not None and num_rows != len(self.texts):
            msg = (
                f"The `{name}` of the reductions has `{num_rows}` rows, and there are `{len(self.texts)}` `texts`. "
                "Give one of each per token."
            )
            raise OptionError(msg)
        if num_rows < len(self.norms):
            msg = (
                f"The `{name}` of the reductions has `{num_rows}` rows. Give one per token: `{len(self.norms)}` or "
                "more."
            )
            raise OptionError(msg)

    @property
    def rows(self) -> FloatArray:
        """The norms (T, L) without those of sinks."""
        return self._rows(0, len(self.norms))

    @property
    def relative_rows(self) -> FloatArray:
        """The norms relative to those of the same tokens (T, L), without those of sinks.

        Raises:
            OptionError: Nobody knows the tokens.
        """
        if self.relative_norms is None:
            msg = (
                "This score compares norms with the usual ones of the same tokens, and the response does not say which "
                'tokens it has. Let the model choose as it generates, or ask it with `norms="tokens"`.'
            )
            raise OptionError(msg)
        values = np.asarray(self.relative_norms, dtype=np.float64).reshape(-1, len(self.layers))
        return values[self.row_indices]

    @property
    def late_rows(self) -> FloatArray:
        """The last ceil(0.3 T) of `rows`: at least one, unless there is none at all."""
        rows = self.rows
        # In integers: 0.3 is not exact in binary, and ceil would now and then take one row more.
        return rows[len(rows) - (3 * len(rows) + 9) // 10 :]

    @property
    def tail_rows(self) -> FloatArray:
        """The last third of `rows`, rounded up: at least one, unless there is none at all."""
        rows = self.rows
        return rows[len(rows) - (len(rows) + 2) // 3 :]

    @property
    def step_rows(self) -> list[FloatArray]:
        """The norms (tokens, L) of every step that has any; all of them as one step when no step has any."""
        return [rows for start, end in self.steps if len(rows := self._rows(start, end))] or [self.rows]

    @property
    def tau(self) -> FloatArray:
        """The thresholds (L,).

        Raises:
            OptionError: There are none.
        """
        if self.thresholds is None:
            msg = (
                "This score compares norms with thresholds, and the response has none. Calibrate a NormProfile, pass "
                "a fixed threshold per layer, or use a score without thresholds such as `mean`."
            )
            raise OptionError(msg)
        return np.asarray(self.thresholds, dtype=np.float64)

    @property
    def token_logprobs(self) -> FloatArray:
        """The log-probabilities (generated tokens,), sinks included: their probability is as good as any.

        Raises:
            OptionError: They were not recorded.
        """
        if self.logprobs is None:
            msg = "This score reads log-probabilities, and the response has none. Generate with `logprobs=True`."
            raise OptionError(msg)
        return np.asarray(self.logprobs, dtype=np.float64)

    @property
    def row_logprobs(self) -> FloatArray:
        """The log-probabilities of the tokens of `rows` (T,).

        Raises:
            OptionError: They were not recorded.
        """
        return self.token_logprobs[self.row_indices]

    @property
    def row_indices(self) -> list[int]:
        """The indices of the tokens of `rows` (T of them)."""
        return self._kept(0, len(self.norms))

    @property
    def is_numeral(self) -> NDArray[np.bool_]:
        """Which generated tokens are numerals: digits alone, white space around them aside.

        Raises:
            OptionError: Their texts were not kept.
        """
        if self.texts is None:
            msg = "This score reads the texts of tokens, and the response has none. Generate with `logprobs=True`."
            raise OptionError(msg)
        return np.asarray([text.strip().isdecimal() for text in self.texts], dtype=bool)

    @property
    def distribution(self) -> Distribution:
        """What was kept of the distributions (generated tokens,), sinks included.

        Raises:
            OptionError: Nothing was.
        """
        if self.reductions.distribution is None:
            msg = (
                "This score reads what the distributions of tokens are like, and the response has no record of it. "
                "Ask the model with `distribution=True`, let it choose as it generates, by `NormSelector` or "
                "`selection=`, or use a score such as `mean_logprob`."
            )
            raise OptionError(msg)
        return self.reductions.distribution

    @property
    def lens(self) -> Lens:
        """What was kept of how late tokens settled (generated tokens,), sinks included.

        Raises:
            OptionError: Nothing was.
        """
        if self.reductions.lens is None:
            msg = (
                "This score reads how late in the stack tokens settled, and the response has no record of it. Ask the "
                "model with `lens=True`, let it choose as it generates, by `NormSelector` or `selection=`, or use a "
                "score such as `mean_logprob`."
            )
            raise OptionError(msg)
        return self.reductions.lens

    def update_rows(self, name: Literal["norms", "relative", "layer_cosines", "token_cosines"]) -> FloatArray:
        """Return one kind of number of the `Updates` of layers (T, L), without those of sinks.

        Raises:
            OptionError: They were not recorded.
        """
        if self.reductions.updates is None:
            raise OptionError(_missing("what layers add to hidden states"))
        values: FloatArray = getattr(self.reductions.updates, name)
        return values[self.row_indices]

    @property
    def mean_states(self) -> FloatArray:
        """The mean states (N + 1, d) of what enters the N decoder layers and leaves each; (0, d) where none was run.

        Raises:
            OptionError: They were not recorded.
        """
        if self.reductions.mean_states is None:
            raise OptionError(_missing("the means of hidden states"))
        return self.reductions.mean_states

    def _kept(self, start: int, end: int) -> list[int]:
        """Return the indices of the rows in [start, end) that are not sinks."""
        sinks = set(self.sinks)
        return [i for i in range(start, min(end, len(self.norms))) if i not in sinks]

    def _rows(self, start: int, end: int) -> FloatArray:
        kept = [self.norms[i] for i in self._kept(start, end)]
        return np.asarray(kept, dtype=np.float64).reshape(len(kept), len(self.layers))


def sample_of(
    trace: NormTrace,
    logprobs: Sequence[float] | None = None,
    texts: Sequence[str] | None = None,
    reductions: Reductions | None = None,
    relative_norms: Sequence[Sequence[float]] | None = None,
) -> Sample:
    """Return what scores see of the response whose trace this is.

    Args:
        trace: With the norms of its tokens.
        logprobs: Log-probability of every generated token.
        texts: Text of every generated token.
        reductions: What was kept beside norms, if anything was.
        relative_norms: Relative to the usual norms of its tokens.

    Raises:
        OptionError: The trace has no norms of tokens.
    """
    if trace.token_norms is None:
        msg = 'Scores need the norms of every token, and this trace has none. Ask the model with `norms="tokens"`.'
        raise OptionError(msg)
    return Sample(
        norms=trace.token_norms,
        layers=trace.layers,
        thresholds=trace.thresholds,
        sinks=trace.sinks,
        steps=tuple((step.start, step.end) for step in trace.steps),
        logprobs=logprobs,
        texts=texts,
        reductions=reductions or Reductions(),
        relative_norms=relative_norms,
        num_tokens=trace.tokens,
    )


def with_relative_norms(
    samples: Sequence[Sample],
    token_ids: Sequence[Sequence[int]],
    layers: Sequence[int],
    baseline: Baseline | None = None,
) -> list[Sample]:
    """Return responses to one prompt with their norms relative to the usual ones of the same tokens too.

    Args:
        samples: The responses, with norms of the same layers.
        token_ids: The tokens of each.
        layers: 0-based indices of the recorded layers.
        baseline: What their call compares with; None for nothing but the responses themselves.
    """
    answers = [AnswerNorms(ids, one.norms, one.sinks) for ids, one in zip(token_ids, samples, strict=True)]
    relative = relative_norms(answers, layers, baseline)
    return [replace(one, relative_norms=rows) for one, rows in zip(samples, relative, strict=True)]


def _missing(what: str) -> str:
    return (
        f"This score reads {what}, and the response has no record of it. Messages do not carry it: let the model "
        "choose as it generates, by `NormSelector` or `selection=`, or use a score such as `mean_logprob`."
    )


def is_finite(values: FloatArray) -> bool:
    """Return whether all values are finite."""
    return bool(np.isfinite(values).all())
