"""A model's own distribution of norms, fitted once and kept in a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from langnorm.errors import OptionError
from langnorm.files import is_stream, write_atomically
from langnorm.norms.calibration import calibrate
from langnorm.norms.identity import ModelIdentity
from langnorm.norms.step_ranks import IntensityKind, StepSample, StoredSteps
from langnorm.norms.stored_sketch import StoredSketch
from langnorm.norms.token_file import digest_of, read_table, to_bytes, write_pair
from langnorm.norms.token_sums import TokenSums
from langnorm.stored import Stored, StoredForm

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from langnorm.norms.calibration import NormAnswers
    from langnorm.norms.calibration_report import CalibrationReport
    from langnorm.norms.sketch import QuantileSketch
    from langnorm.norms.token_table import TokenTable

FILE_NAME = "norm_profile.json"
"""A profile of this name beside a model's weights is taken by itself."""

_VERSION: Literal[2] = 2


class NormProfile:
    """The distribution of the norms of each decoder layer, what is usual for tokens and steps, and of what model it is.

    Args:
        name: What messages call it.
        identity: Of the model that it was fitted on.
        sketch: The distributions, of one or more of the model's layers.
        tokens: The usual norms of token ids in some of these layers, or None.
        steps: How high the norms of some steps were, by what they were compared with: see `IntensityKind`.

    Attributes:
        report: What its calibration has seen, in the process that has just run one; None otherwise.
    """

    report: CalibrationReport | None = None

    def __init__(
        self,
        name: str,
        identity: ModelIdentity,
        sketch: QuantileSketch,
        tokens: TokenTable | None = None,
        steps: Mapping[IntensityKind, StepSample] | None = None,
    ) -> None:
        self.name = name
        self.identity = identity
        self.sketch = sketch
        self.tokens = tokens
        self.steps = dict(steps or {})

    def __repr__(self) -> str:
        tokens = "" if self.tokens is None else f", tokens={self.tokens!r}"
        return f"NormProfile({self.name!r}, layers={list(self.layers)}, num_tokens={self.num_tokens}{tokens})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NormProfile):
            return False
        return self.to_dict() == other.to_dict() and self.tokens == other.tokens

    __hash__ = None  # type: ignore[assignment]  # it can be merged into

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it knows, as 0-based indices."""
        return self.sketch.layers

    @property
    def num_tokens(self) -> int:
        """Number of tokens that it was fitted on."""
        return self.sketch.num_samples

    @classmethod
    def calibrate(
        cls,
        chat: NormAnswers,
        prompts: Sequence[Any],
        *,
        num_tokens: int = 20_000,
        checkpoint: str | os.PathLike[str] | None = None,
        restart: bool = False,
        show_progress: bool = True,
    ) -> NormProfile:
        """Return the profile of the answers that `chat` gives to `prompts`.

        All decoder layers are recorded, and for each token id what is usual in the layers that `"late"`, `"deep"` and
        the chat model's own `layers` name. Left out are attention sinks, and tokens by which an answer that runs in a
        loop only says again what it said before. The `report` of the profile tells how many these were, how often norms
        are above the IQR threshold, how much of them the token explains, and how many tokens would have been enough:
        some thousands usually are.

        Args:
            chat: A `ChatLangNorm` with the sampling that the profile is for. Where neither it nor the model's own
                configuration limits the tokens of an answer, 1,024 do.
            prompts: Texts or lists of messages, like those that the model will be asked. They are asked in order, and
                where the model samples, again with other seeds until there are enough tokens.
            num_tokens: Tokens to record; calibration ends with the batch that reaches it.
            checkpoint: File that holds what was done so far; a call that was interrupted goes on from it. It is
                removed at the end.
            restart: Whether to begin anew where the checkpoint is there already.
            show_progress: Whether to show a progress bar.

        Raises:
            OptionError: There are no prompts, nothing was recorded, or the checkpoint belongs to another calibration:
                other prompts, settings or another model.
        """
        found = calibrate(
            chat,
            prompts,
            num_tokens=num_tokens,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            restart=restart,
            show_progress=show_progress,
        )
        profile = cls(chat.model, chat.loaded_engine().identity, found.sketch, found.tokens, found.steps)
        profile.report = found.report
        return profile

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NormProfile:
        """Return the profile in a file, with the table of tokens that lies beside it where it has one.

        Raises:
            OptionError: There is no such file, it holds no profile, or its table is missing or that of another profile.
        """
        stored = _FORM.read(path)
        profile = cls._from_stored(stored)
        if stored.token_table is not None:
            profile.tokens = read_table(Path(path), stored.token_table)
            if missing := sorted({*profile.tokens.layers} - {*profile.layers}):
                msg = f"The table of tokens of `{path}` has layers that the profile lacks: {missing}. Copy both files."
                raise OptionError(msg)
        return profile

    @classmethod
    def from_dict(cls, stored: Any) -> NormProfile:
        """Return the profile whose JSON form is `stored`, without its table of tokens.

        Raises:
            OptionError: It is not the JSON form of a profile of this version; the message says what is wrong where.
        """
        return cls._from_stored(_FORM.check(stored, "This"))

    @classmethod
    def _from_stored(cls, stored: _StoredProfile) -> NormProfile:
        from langnorm.norms.sketch import QuantileSketch

        steps = {kind: StepSample.from_stored(of_kind) for kind, of_kind in stored.steps.items()}
        return cls(stored.name, stored.identity, QuantileSketch.from_stored(stored.sketch), steps=steps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile to a file, and its table of tokens beside it, of the same name but for `.tokens`.

        Both are replaced together or not at all. Into a pipe or a device goes the profile without its table.

        Raises:
            OptionError: The folder does not exist or cannot be written, or another file has the table's name.
        """
        path, stored = Path(path), self.to_dict()
        is_alone = is_stream(path)
        content = None if self.tokens is None or is_alone else to_bytes(self.tokens)
        if content is not None:
            stored["token_table"] = digest_of(content)
        text = json.dumps(stored, separators=(",", ":")) + "\n"
        if is_alone:
            write_atomically(path, text)
        else:
            write_pair(path, text, content)

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form, without its table of tokens."""
        return {
            "langnorm_profile": _VERSION,
            "name": self.name,
            "identity": asdict(self.identity),
            "sketch": self.sketch.to_dict(),
            "steps": {kind: sample.to_dict() for kind, sample in self.steps.items()},
        }

    def merge(self, other: NormProfile) -> None:
        """Add the tokens of another profile of the same model and layers.

        Raises:
            OptionError: They differ in what they were fitted on, or in the layers of their tables of tokens.
        """
        self._refuse(self.identity.differences(other.identity), f"`{other.name}`")
        if (self.tokens is None) != (other.tokens is None):
            msg = (
                f"Of `{self.name}` and `{other.name}` only one has a table of tokens. Calibrate the other one again, "
                "or do without: `profile.tokens = None`."
            )
            raise OptionError(msg)
        tokens = self.tokens
        if tokens is not None and other.tokens is not None:
            tokens = TokenSums.of(tokens).merged_with(TokenSums.of(other.tokens)).table()
        self.sketch.merge(other.sketch)
        self.tokens = tokens
        both = [kind for kind in self.steps if kind in other.steps]
        self.steps = {kind: self.steps[kind].merged_with(other.steps[kind]) for kind in both}

    def check(self, identity: ModelIdentity) -> None:
        """Do nothing if this is a profile of the model with this identity, such as `engine.identity`.

        Raises:
            OptionError: It is a profile of another model, dtype or chat template; the message says what differs.
        """
        self._refuse(self.identity.differences(identity), "this model")

    def select(self, layers: Sequence[int]) -> QuantileSketch:
        """Return the distributions of some layers.

        Raises:
            OptionError: It does not know one of them.
        """
        missing = sorted(set(layers) - set(self.layers))
        if missing:
            msg = (
                f"The profile `{self.name}` has no layer {', '.join(map(str, missing))}; it has "
                f"{', '.join(map(str, self.layers))}. Record one of these, or calibrate again."
            )
            raise OptionError(msg)
        return self.sketch.select(layers)

    def select_tokens(self, layers: Sequence[int]) -> TokenTable | None:
        """Return what is usual for token ids in some layers; None if it does not know that of one of them."""
        is_known = self.tokens is not None and set(layers) <= set(self.tokens.layers)
        return self.tokens.select(layers) if self.tokens is not None and is_known else None

    def step_intensities(self, kind: IntensityKind, layers: Sequence[int]) -> tuple[float, ...] | None:
        """Return the intensities of some steps in some layers, ascending; None if it does not know enough of them."""
        sample = self.steps.get(kind)
        return None if sample is None else sample.intensities(layers)

    def _refuse(self, differences: list[str], what: str) -> None:
        if differences:
            msg = (
                f"The profile `{self.name}` does not belong to {what}: {'; '.join(differences)}. Norms of different "
                "models cannot be compared: calibrate one for it with `NormProfile.calibrate` or `langnorm calibrate`."
            )
            raise OptionError(msg)


class _StoredProfile(Stored):
    """A profile in a file."""

    langnorm_profile: Literal[2]
    name: str
    identity: ModelIdentity
    sketch: StoredSketch
    steps: dict[IntensityKind, StoredSteps] = Field(default_factory=dict)
    token_table: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> _StoredProfile:
        if self.sketch.indices and self.sketch.indices[-1] >= self.identity.num_layers:
            msg = f"layer {self.sketch.indices[-1]} is outside a model of {self.identity.num_layers} layers"
            raise ValueError(msg)
        for kind, steps in self.steps.items():
            if missing := sorted({*steps.layers} - {*self.sketch.indices}):
                msg = f"its steps by {kind} have layers that it lacks: {missing}"
                raise ValueError(msg)
        return self


_FORM = StoredForm(
    _StoredProfile,
    "a profile of this version of langnorm",
    "Make one with `langnorm calibrate` or `NormProfile.calibrate`; one beside the weights of a model may be deleted.",
)
