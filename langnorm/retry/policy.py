"""When an answer is asked again, and what becomes of it: the options that every way to retry has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from langnorm.checks import check_choice, check_flag, check_integer, check_number
from langnorm.retry.escalation import DEFAULT_ESCALATION, EscalationOption, EscalationStep, resolve_escalation

OnExhausted = Literal["best", "last", "raise"]
"""What becomes of a call whose attempts were all weak."""

MAX_LOW_SHARE = 0.3
"""An answer is weak when a larger share of its steps is low, unless the user says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and with what changes a weak answer is asked again.

    Attributes:
        max_low_share: Share of low steps, 0 to 1, above which an answer is weak.
        max_attempts: Most attempts at one answer, the first one included.
        escalation: What the retries change, in their order, as `resolve_escalation` takes it; `steps` has them checked.
        on_exhausted: When all attempts are weak, `"best"` keeps the best, `"last"` the last; `"raise"` raises.
        retry_tool_calls: Whether weak answers that call tools are retried too.

    Raises:
        OptionError: A value is not allowed.
    """

    max_low_share: float = MAX_LOW_SHARE
    max_attempts: int = 3
    escalation: EscalationOption = DEFAULT_ESCALATION
    on_exhausted: OnExhausted = "best"
    retry_tool_calls: bool = False

    def __post_init__(self) -> None:
        share = "a number from 0 to 1; 1 finds no answer weak"
        check_number("max_low_share", self.max_low_share, low=0, high=1, allowed=share)
        check_integer("max_attempts", self.max_attempts, low=1)
        check_choice("on_exhausted", self.on_exhausted, get_args(OnExhausted))
        check_flag("retry_tool_calls", self.retry_tool_calls)
        object.__setattr__(self, "escalation", resolve_escalation(self.escalation))

    @property
    def steps(self) -> tuple[EscalationStep, ...]:
        """What the retries change, in their order; the last step serves all further ones."""
        return cast("tuple[EscalationStep, ...]", self.escalation)  # since the check
