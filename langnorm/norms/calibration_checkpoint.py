"""How far a calibration has come, in a file, with what decides its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from langnorm.errors import OptionError
from langnorm.files import write_atomically
from langnorm.norms.calibration_report import Tally
from langnorm.norms.recorded_steps import RecordedSteps, StoredRecordedSteps
from langnorm.norms.stored_sketch import StoredSketch
from langnorm.norms.token_sums import StoredSums, TokenSums
from langnorm.stored import Stored, StoredForm
from langnorm.work import differences, digest_of, in_words

if TYPE_CHECKING:
    from langnorm.norms.sketch import QuantileSketch

_VERSION: Literal[3] = 3


class _StoredCheckpoint(Stored):
    """A checkpoint in a file."""

    langnorm_calibration: Literal[3]
    work: dict[str, str]
    num_batches: Annotated[int, Field(ge=0)]
    tally: Tally
    halves: tuple[StoredSketch, StoredSketch]
    tokens: StoredSums
    steps: StoredRecordedSteps


_FORM = StoredForm(
    _StoredCheckpoint,
    "a checkpoint of a calibration by this version of langnorm",
    "Delete it, or give another path.",
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a calibration has come.

    Attributes:
        halves: The distributions of the norms of every second answer, and of the others.
        tokens: The norms of each token id, in all answers.
        steps: Some of the steps of all answers.
        tally: What was counted on the way.
        num_batches: Number of batches that are done.
    """

    halves: tuple[QuantileSketch, QuantileSketch]
    tokens: TokenSums
    steps: RecordedSteps
    tally: Tally
    num_batches: int

    @classmethod
    def load(cls, path: Path, work: Mapping[str, str]) -> Checkpoint:
        """Return the checkpoint in a file.

        Args:
            path: Of the file.
            work: What decides the result of the calibration that is to go on, in words, by name.

        Raises:
            OptionError: The file holds no checkpoint, or one of other work; the message says what differs.
        """
        from langnorm.norms.sketch import QuantileSketch

        stored = _FORM.read(path)
        if differing := differences(stored.work, work):
            msg = (
                f"The checkpoint `{path}` belongs to another calibration: {'; '.join(differing)}. Go on with its "
                "settings, begin anew with `restart=True` (`--restart` on the command line), or give another path."
            )
            raise OptionError(msg)
        first, second = (QuantileSketch.from_stored(half) for half in stored.halves)
        tokens, steps = TokenSums.from_stored(stored.tokens), RecordedSteps.from_stored(stored.steps)
        return cls((first, second), tokens, steps, stored.tally, stored.num_batches)

    def save(self, path: Path, work: Mapping[str, str]) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            OptionError: The folder does not exist or cannot be written.
        """
        stored = {
            "langnorm_calibration": _VERSION,
            "work": dict(work),
            "num_batches": self.num_batches,
            "tally": asdict(self.tally),
            "halves": [half.to_dict() for half in self.halves],
            "tokens": self.tokens.to_dict(),
            "steps": self.steps.to_dict(),
        }
        write_atomically(path, json.dumps(stored, separators=(",", ":")))


def describe_work(settings: Mapping[str, Any], prompts: Sequence[Any], num_layers: int) -> dict[str, str]:
    """Return what decides the result of a calibration: texts by name, short enough to be shown."""
    asked = f"{len(prompts)} with the hash {digest_of(prompts)}"
    return in_words({**settings, "prompts": asked, "layers": num_layers})
