"""NormTrace: the hidden-state norms that a message carries, per reasoning step, in plain JSON types."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.errors import MissingDependencyError, OptionError
from langnorm.norms.step_ranks import IntensityKind
from langnorm.stored_trace import TRACE, VERSION, StoredTrace
from langnorm.text.reasoning import Part

if TYPE_CHECKING:
    import pandas as pd
    from langchain_core.messages import BaseMessage

KEY = "langnorm"
"""Under this key `response_metadata` has the trace, and `additional_kwargs` the norms of single tokens."""

_OF_TOKENS = ("token_norms", "token_percentiles", "token_distances", "token_texts", "token_ids")
"""In `additional_kwargs`, those that there are."""

_WHERE_DONE = ("recursion", "steering", "suppression", "prefix_cache")  # in a trace where there is something to say


@dataclass(frozen=True, slots=True)
class NormStep:
    """One reasoning step.

    Attributes:
        start: Index of the step's first generated token.
        end: One past the index of its last token.
        kind: `"reasoning"`, `"answer"` or `"tool_call"`.
        text_span: [start, end) of its text, in the message's `reasoning_content`, in its content, or in the text of all
            its calls as the model wrote them.
        mean: Mean norm of its tokens, one per layer; None when none of its tokens was run. Attention sinks are left
            out.
        intensity: How high its norms are, mean over tokens and layers, 0 to 1, in the sense of the trace's
            `intensity_kind`; None while there is nothing to compare them with.
        low: Whether the intensity is among the lowest of the steps of its model; None while too few of these are known.
    """

    start: int
    end: int
    kind: Part
    text_span: tuple[int, int]
    mean: tuple[float, ...] | None
    intensity: float | None = None
    low: bool | None = None


_STEP = tuple(field.name for field in fields(NormStep))


@dataclass(frozen=True, slots=True)
class NormTrace:
    """The norms of one message.

    Attributes:
        tokens: Number of generated tokens T. The last one is never run, so there are T - 1 rows of norms.
        layers: 0-based indices of the decoder layers that were read, ascending.
        mean: Mean norm of all rows, one per layer; None when there is no row. Attention sinks are left out.
        steps: The steps in order.
        intensity: How high all norms are, 0 to 1, or None.
        thresholds: The norm of each layer above which it is high; None while the rule has nothing to go by.
        trigger_rate: Share of the rows above it, one per layer; None together with `thresholds`.
        sinks: Indices of the tokens that are attention sinks.
        profile: Name of the profile that the norms were compared with, `"online"`, or None.
        intensity_kind: What intensities are: `"layer"` for percentiles among all norms of the layer, `"token"` for
            Phi(z) of the distances z from the usual norms of the same tokens.
        token_norms: With `norms="tokens"`, a row per token that was run, one value per layer.
        token_percentiles: With `norms="tokens"` and something to compare with, the share of the layer's norms that is
            below each of `token_norms`, 0 to 1.
        token_distances: With `norms="tokens"`, where usual norms of tokens are known, the distance z of each of
            `token_norms` from that of its token id.
        token_texts: With `norms="tokens"`, the text that became decodable with each of the T tokens.
        token_ids: With `norms="tokens"`, the ids of the T tokens.
        recursion: Thresholds (running ones as the last token met them), counts per layer, the tokens that were
            `acted_on` per layer (None where all are), and the share of all layer passes that were extra, if there was
            any. With `mode="block"` also the layers of the `block`, and of its tokens mean and maximum of
            `||out - g(x_0)|| / ||g(x_0)||` as `moved`.
        steering: Thresholds, and the token, layer and cosine of every pull, if there was steering.
        suppression: Thresholds, the number of shrunk states per layer, and their tokens as `acted_on`, if there was
            suppression.
        prefix_cache: How many `tokens` of the prompt were not run again, because an earlier call began alike, and the
            `bytes` that their keys and values take; None if all were run.
    """

    tokens: int
    layers: tuple[int, ...]
    mean: tuple[float, ...] | None
    steps: tuple[NormStep, ...]
    intensity: float | None = None
    thresholds: tuple[float, ...] | None = None
    trigger_rate: tuple[float, ...] | None = None
    sinks: tuple[int, ...] = ()
    profile: str | None = None
    intensity_kind: IntensityKind = "layer"
    token_norms: tuple[tuple[float, ...], ...] | None = None
    token_percentiles: tuple[tuple[float, ...], ...] | None = None
    token_distances: tuple[tuple[float, ...], ...] | None = None
    token_texts: tuple[str, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    recursion: dict[str, Any] | None = None
    steering: dict[str, Any] | None = None
    suppression: dict[str, Any] | None = None
    prefix_cache: dict[str, int] | None = None

    @property
    def low_steps(self) -> tuple[int, ...] | None:
        """Indices of the steps of low intensity, or None while nobody knows what is low."""
        if self.intensity is None or (self.steps and all(step.low is None for step in self.steps)):
            return None
        return tuple(i for i, step in enumerate(self.steps) if step.low)

    def step_texts(self, message: BaseMessage) -> list[str]:
        """Return the text of every step, in order, as `message` carries it.

        The text of a tool call is empty: a message carries calls by name and arguments, not as the model wrote them.

        Args:
            message: The message that this trace is of.
        """
        texts = {
            "reasoning": str(message.additional_kwargs.get("reasoning_content") or ""),
            "answer": str(message.text),
        }
        return [texts.get(step.kind, "")[slice(*step.text_span)] for step in self.steps]

    @classmethod
    def from_message(cls, message: BaseMessage) -> NormTrace:
        """Return the trace that `message` carries.

        Raises:
            OptionError: The message has none: another model made it, or `norms` was off.
        """
        if not _has_trace(message):
            msg = (
                f"This `{type(message).__name__}` carries no norms. "
                'Use a message of ChatLangNorm with `norms="steps"` or `norms="tokens"`.'
            )
            raise OptionError(msg)
        stored = message.response_metadata[KEY]
        of_tokens = message.additional_kwargs.get(KEY) if isinstance(message.additional_kwargs, Mapping) else None
        if isinstance(stored, Mapping) and isinstance(of_tokens, Mapping):
            stored = {**stored, **{name: of_tokens.get(name) for name in _OF_TOKENS}}
        return cls.from_dict(stored, source=f"What this `{type(message).__name__}` carries")

    @classmethod
    def from_messages(cls, messages: Sequence[BaseMessage] | Mapping[str, Any]) -> list[NormTrace]:
        """Return the traces of a conversation, in order; messages without one are passed over.

        Args:
            messages: The messages, or the state of an agent, which has them under `"messages"`.

        Raises:
            OptionError: It is neither.
        """
        if isinstance(messages, Mapping):
            if "messages" not in messages:
                msg = f"This state has no `messages`, only {', '.join(map(str, messages)) or 'nothing'}. Give those."
                raise OptionError(msg)
            return cls.from_messages(messages["messages"])
        given: object = messages
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            msg = (
                f"A `{type(messages).__name__}` is no conversation. Give a list of messages, or the state of an agent."
            )
            raise OptionError(msg)
        return [cls.from_message(message) for message in messages if _has_trace(message)]

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], *, source: str = "This") -> NormTrace:
        """Return the trace whose `to_dict` is `stored`, which may have what `token_dict` returns too.

        Args:
            stored: The JSON form.
            source: What it is from, for the error.

        Raises:
            OptionError: It is not the JSON form of a trace of this version; the message says what is wrong where.
        """
        return cls._from_stored(TRACE.check(stored, source))

    @classmethod
    def _from_stored(cls, stored: StoredTrace) -> NormTrace:
        values = {name: getattr(stored, name) for name in _FIELDS}
        return cls(
            **values
            | {
                "steps": tuple(NormStep(**{name: getattr(step, name) for name in _STEP}) for step in stored.steps),
                "thresholds": _in_order(stored.thresholds, stored.layers),
                "trigger_rate": _in_order(stored.trigger_rate, stored.layers),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `response_metadata["langnorm"]` holds: plain JSON types, without the norms of tokens."""
        steps = [
            {name: getattr(step, name) for name in _STEP}
            | {"text_span": list(step.text_span), "mean": _list(step.mean)}
            for step in self.steps
        ]
        return {
            "version": VERSION,
            "tokens": self.tokens,
            "layers": list(self.layers),
            "mean": _list(self.mean),
            "intensity": self.intensity,
            "intensity_kind": self.intensity_kind,
            "low_steps": _list(self.low_steps),
            "steps": steps,
            "thresholds": _by_layer(self.thresholds, self.layers),
            "trigger_rate": _by_layer(self.trigger_rate, self.layers),
            "sinks": list(self.sinks),
            "profile": self.profile,
        } | {name: done for name in _WHERE_DONE if (done := getattr(self, name)) is not None}

    def token_dict(self) -> dict[str, list[Any]]:
        """Return what `additional_kwargs["langnorm"]` holds of single tokens: plain JSON types, only what is known."""
        known = {name: values for name in _OF_TOKENS if (values := getattr(self, name)) is not None}
        return {name: [list(v) if isinstance(v, tuple) else v for v in values] for name, values in known.items()}

    def to_json(self) -> str:
        """Return the trace as one line of JSON, with the norms of tokens if it has them.

        Raises:
            OptionError: It has a number that is not finite, for which JSON has no word.
        """
        try:
            return json.dumps(self.to_dict() | self.token_dict(), allow_nan=False)
        except ValueError as error:
            msg = f"This trace cannot be written as JSON ({error}). Give it finite numbers."
            raise OptionError(msg) from error

    @classmethod
    def from_json(cls, text: str) -> NormTrace:
        """Return the trace whose `to_json` is `text`.

        Raises:
            OptionError: It is not the JSON form of a trace of this version.
        """
        return cls._from_stored(TRACE.parse(text, "This"))

    @classmethod
    def write_jsonl(cls, path: str | os.PathLike[str], traces: Iterable[NormTrace]) -> None:
        """Write traces to a file, one a line; the file is there whole or not at all."""
        from langnorm.files import write_atomically

        write_atomically(Path(path), "".join(trace.to_json() + "\n" for trace in traces))

    @classmethod
    def read_jsonl(cls, path: str | os.PathLike[str]) -> list[NormTrace]:
        """Return the traces that `write_jsonl` wrote.

        Raises:
            OptionError: The file cannot be read, or a line is not a trace.
        """
        return [cls._from_stored(stored) for stored in TRACE.read_lines(path)]

    def to_dataframe(self, by: str = "step") -> pd.DataFrame:
        """Return the trace as a pandas frame.

        Args:
            by: `"step"` for a row per step with its fields and its mean norm of each layer (`mean_9`, ...); `"token"`
                for a row per token with the norm of each layer (`norm_9`, ...), its step, and whether it is a sink.

        Raises:
            MissingDependencyError: pandas is not installed.
            OptionError: `by` is something else, or the trace has no norms of tokens.
        """
        try:
            import pandas as pd
        except ImportError as error:
            msg = "A data frame needs pandas. Install it: `pip install pandas`."
            raise MissingDependencyError(msg) from error
        if by == "step":
            return pd.DataFrame([self._step_row(step) for step in self.steps], columns=self._step_columns())
        if by != "token":
            msg = f'`by={by!r}` is not allowed. Use "step" or "token".'
            raise OptionError(msg)
        if self.token_norms is None:
            msg = 'This trace has no norms of tokens. Ask the model with `norms="tokens"`.'
            raise OptionError(msg)
        step_of = {token: i for i, step in enumerate(self.steps) for token in range(step.start, step.end)}
        frame = pd.DataFrame(list(self.token_norms), columns=[f"norm_{layer}" for layer in self.layers], dtype=float)
        frame.insert(0, "step", pd.Series([step_of.get(i) for i in range(len(frame))], dtype="Int64"))
        frame["sink"] = [i in self.sinks for i in range(len(frame))]
        return frame.rename_axis("token")

    def _repr_html_(self) -> str:
        """Return the heat map that a notebook shows; `langnorm.viz.heatmap(message)` has the texts of steps too."""
        from langnorm.viz.html.page import Page
        from langnorm.viz.html.view import build_view

        return Page("Where the model worked hardest", [build_view(self)])._repr_html_()

    def _step_columns(self) -> list[str]:
        means = [f"mean_{layer}" for layer in self.layers]
        return ["kind", "start", "end", "text_start", "text_end", "intensity", "low", *means]

    def _step_row(self, step: NormStep) -> list[Any]:
        means = step.mean or (None,) * len(self.layers)
        return [step.kind, step.start, step.end, *step.text_span, step.intensity, step.low, *means]


_FIELDS = tuple(field.name for field in fields(NormTrace))


def _has_trace(message: object) -> bool:
    """Return whether a message carries a trace, sound or not; with norms off it carries interventions alone.

    Raises:
        OptionError: It is no message.
    """
    if not hasattr(message, "response_metadata") or not hasattr(message, "additional_kwargs"):
        msg = f"A `{type(message).__name__}` is no message. Give messages of LangChain, such as ChatLangNorm returns."
        raise OptionError(msg)
    metadata = message.response_metadata
    stored = metadata.get(KEY) if isinstance(metadata, Mapping) else None
    return "steps" in stored if isinstance(stored, Mapping) else stored is not None


def _by_layer(values: Sequence[float] | None, layers: Sequence[int]) -> dict[str, float] | None:
    return None if values is None else {str(layer): value for layer, value in zip(layers, values, strict=True)}


def _in_order(by_layer: Mapping[str, float] | None, layers: Sequence[int]) -> tuple[float, ...] | None:
    return None if by_layer is None else tuple(by_layer[str(layer)] for layer in layers)


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
