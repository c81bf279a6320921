"""Which sequence of the context holds the keys and values of which tokens, and who may begin with them.

A slot is running, idle or free. An idle one keeps what a finished sequence left, for the next turn of its conversation,
until its place is needed: the one that was used longest ago goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Slot:
    """What a slot holds.

    Attributes:
        token_ids: The tokens whose keys and values are there, and those that a running one is about to add.
        num_ready: How many of these are there, in the form in which another sequence may use them.
    """

    token_ids: list[int] = field(default_factory=list)
    num_ready: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sequence begins.

    Attributes:
        slot: Its slot.
        num_shared: Number of its first tokens that are there already, or will be after `donor` was copied.
        donor: The slot to copy them from; None where they are in `slot` itself.
        dropped: An idle slot whose tokens must be forgotten beforehand, or None.
        is_earlier: Whether the tokens that are there are those of a sequence that has ended.
    """

    slot: int
    num_shared: int
    donor: int | None
    dropped: int | None = None
    is_earlier: bool = False


class Slots:
    """The slots of a context.

    Args:
        number: How many there are.
        can_share: Whether a sequence of this model can begin with the tokens of another one.
    """

    def __init__(self, number: int, *, can_share: bool) -> None:
        self._free = list(range(number))[::-1]
        self._can_share = can_share
        self._running: dict[int, _Slot] = {}
        self._idle: dict[int, _Slot] = {}  # the one that was used longest ago first

    def take(self, token_ids: Sequence[int], *, can_begin_elsewhere: bool = True) -> Place | None:
        """Return a place for a sequence, which runs from now on; None if it should wait.

        It waits while all slots are running, and while a running one is about to add tokens that it can begin with.

        Args:
            token_ids: Its tokens.
            can_begin_elsewhere: Whether it may begin with tokens that were run for another sequence.
        """
        if not self._free and not self._idle:
            return None
        # The last token is run, for what follows on it.
        most = len(token_ids) - 1 if self._can_share and can_begin_elsewhere else 0
        shareable = list(token_ids[:most])
        donor, num_shared = None, 0
        for number, slot in (*self._running.items(), *self._idle.items()):
            num_common = _common(shareable, slot.token_ids)
            if number in self._running and num_common > max(slot.num_ready, num_shared):
                return None
            if (ready := min(num_common, slot.num_ready)) > num_shared:
                donor, num_shared = number, ready
        place = self._place(donor, num_shared)
        self._running[place.slot] = _Slot(list(token_ids), num_shared)
        return place

    def _place(self, donor: int | None, num_shared: int) -> Place:
        kept = self._idle.pop(donor, None) if donor is not None else None
        if kept and donor is not None:
            if num_shared == len(kept.token_ids) or not self._free:
                return Place(donor, num_shared, None, is_earlier=True)
            self._idle[donor] = kept  # it was used just now
        is_earlier = kept is not None
        if self._free:
            return Place(self._free.pop(), num_shared, donor, is_earlier=is_earlier)
        dropped = next(iter(self._idle))
        del self._idle[dropped]
        return Place(dropped, num_shared, donor, dropped, is_earlier)

    def set_ready(self, number: int, num_ready: int) -> None:
        """Note that other sequences may begin with so many first tokens of a running slot."""
        slot = self._running[number]
        slot.num_ready = min(num_ready, len(slot.token_ids))

    def release(self, number: int, kept_ids: Sequence[int]) -> None:
        """End a running slot; what it keeps are the first tokens of its sequence, or nothing."""
        del self._running[number]
        if kept_ids and self._can_share:
            self._idle[number] = _Slot(list(kept_ids), len(kept_ids))
        else:
            self._free.append(number)

    def drop_idle(self) -> int | None:
        """Free the idle slot that was used longest ago and return it; None if there is none."""
        if not self._idle:
            return None
        number = next(iter(self._idle))
        del self._idle[number]
        self._free.append(number)
        return number

    def clear(self) -> list[int]:
        """Free all idle slots and return them."""
        numbers = list(self._idle)
        self._idle.clear()
        self._free.extend(numbers)
        return numbers


def _common(first: list[int], second: list[int]) -> int:
    """Return how many first tokens two sequences have in common."""
    shorter = min(len(first), len(second))
    if first[:shorter] == second[:shorter]:
        return shorter
    return next(i for i in range(shorter) if first[i] != second[i])
