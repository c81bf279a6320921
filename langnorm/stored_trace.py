"""The JSON form of a trace, as messages and files carry it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from langnorm.norms.step_ranks import IntensityKind
from langnorm.stored import PlainJSON, Stored, StoredForm
from langnorm.text.reasoning import Part

VERSION: Literal[1] = 1

_Index = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Norms = tuple[Annotated[float, Field(ge=0)], ...]
_Span = tuple[_Index, _Index]
_Report = dict[str, PlainJSON]


class StoredStep(Stored):
    """A step; fields as in `NormStep`."""

    start: _Index
    end: _Index
    kind: Part
    text_span: _Span
    mean: _Norms | None
    intensity: _Share | None
    low: bool | None


class StoredTrace(Stored):
    """A trace; fields as in `NormTrace`, values by layer under the index of the layer as a text."""

    version: Literal[1]
    tokens: _Index
    layers: tuple[_Index, ...]
    mean: _Norms | None
    steps: tuple[StoredStep, ...]
    intensity: _Share | None
    thresholds: dict[str, float] | None
    trigger_rate: dict[str, _Share] | None
    sinks: tuple[_Index, ...]
    profile: str | None
    intensity_kind: IntensityKind = "layer"
    token_norms: tuple[_Norms, ...] | None = None
    token_percentiles: tuple[tuple[_Share, ...], ...] | None = None
    token_distances: tuple[tuple[float, ...], ...] | None = None
    token_texts: tuple[str, ...] | None = None
    token_ids: tuple[_Index, ...] | None = None
    recursion: _Report | None = None
    steering: _Report | None = None
    suppression: _Report | None = None
    prefix_cache: _Report | None = None

    @model_validator(mode="after")
    def _fits(self) -> StoredTrace:
        layers, num_rows = self.layers, max(0, self.tokens - 1)
        if list(layers) != sorted(set(layers)):
            msg = f"its layers {list(layers)} do not ascend"
            raise ValueError(msg)
        of_tokens = (self.token_norms, self.token_percentiles, self.token_distances)
        rows: list[Sequence[float] | None] = [self.mean, *(step.mean for step in self.steps)]
        rows += [row for values in of_tokens for row in values or ()]
        if any(row is not None and len(row) != len(layers) for row in rows):
            msg = f"it has other than {len(layers)} norms, one for each layer"
            raise ValueError(msg)
        names = {str(layer) for layer in layers}
        if any(values is not None and set(values) != names for values in (self.thresholds, self.trigger_rate)):
            msg = "its values by layer are not those of its layers"
            raise ValueError(msg)
        spans = [(step.start, step.end, self.tokens) for step in self.steps]
        if any(not start <= end <= most for start, end, most in spans) or any(i >= num_rows for i in self.sinks):
            msg = f"it speaks of tokens that are not among its {self.tokens}"
            raise ValueError(msg)
        if any(start > end for start, end in (step.text_span for step in self.steps)):
            msg = "the text of a step ends before it starts"
            raise ValueError(msg)
        for values in of_tokens:
            if values is not None and len(values) != num_rows:
                msg = f"it has the norms of {len(values)} tokens in place of {num_rows}"
                raise ValueError(msg)
        if self.token_texts is not None and len(self.token_texts) != self.tokens:
            msg = f"it has the texts of {len(self.token_texts)} tokens in place of {self.tokens}"
            raise ValueError(msg)
        if self.token_ids is not None and len(self.token_ids) != self.tokens:
            msg = f"it has the ids of {len(self.token_ids)} tokens in place of {self.tokens}"
            raise ValueError(msg)
        return self


TRACE = StoredForm(
    StoredTrace, "a trace of this version of langnorm", "Use what ChatLangNorm, `NormTrace.to_dict` or `to_json` gave."
)
