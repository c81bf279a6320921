"""Which slot of the context a sequence takes, and what it begins with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.llamacpp.slots import Slots


def run_and_release(slots: Slots, ids: list[int]) -> int:
    """Runs a sequence to its end; returns its slot, which keeps all of it."""
    place = slots.take(ids)
    assert place
    slots.set_ready(place.slot, len(ids))
    slots.release(place.slot, ids)
    return place.slot


def test_next_turn_begins_with_what_the_last_one_left() -> None:
    """Its slot is taken over as it is."""
    slots = Slots(4, can_share=True)
    slot = run_and_release(slots, [1, 2, 3])
    place = slots.take([1, 2, 3, 4, 5])
    assert place
    assert (place.slot, place.num_shared, place.donor, place.is_earlier) == (slot, 3, None, True)


def test_another_conversation_keeps_what_an_earlier_one_left() -> None:
    """A common beginning is copied as long as there is another free slot."""
    slots = Slots(4, can_share=True)
    slot = run_and_release(slots, [1, 2, 3])
    place = slots.take([1, 2, 9])
    assert place
    assert (place.donor, place.num_shared, place.is_earlier) == (slot, 2, True)
    assert place.slot != slot
    assert slots.drop_idle() == slot


def test_last_token_is_always_run() -> None:
    """Without it there would be no logits."""
    slots = Slots(2, can_share=True)
    run_and_release(slots, [1, 2, 3])
    place = slots.take([1, 2, 3])
    assert place
    assert place.num_shared == 2


def test_same_prompts_wait_for_the_first_and_then_share_it() -> None:
    """A prompt is run once."""
    slots = Slots(4, can_share=True)
    first = slots.take([1, 2, 3, 4])
    assert first
    assert slots.take([1, 2, 3, 4]) is None
    slots.set_ready(first.slot, 4)
    second = slots.take([1, 2, 3, 4])
    assert second
    assert (second.donor, second.num_shared, second.is_earlier) == (first.slot, 3, False)


def test_longest_unused_goes_first() -> None:
    """Idle slots are dropped in the order of their use."""
    slots = Slots(2, can_share=True)
    old = run_and_release(slots, [1, 1])
    new = run_and_release(slots, [2, 2])
    place = slots.take([3, 3])
    assert place
    assert (place.slot, place.dropped) == (old, old)
    assert slots.drop_idle() == new
    assert slots.drop_idle() is None


def test_no_slot_is_left() -> None:
    """Then a sequence waits."""
    slots = Slots(1, can_share=True)
    assert slots.take([1])
    assert slots.take([2]) is None


def test_models_with_recurrent_state_share_nothing() -> None:
    """Their state cannot be cut."""
    slots = Slots(2, can_share=False)
    run_and_release(slots, [1, 2, 3])
    place = slots.take([1, 2, 3, 4])
    assert place
    assert place.num_shared == 0
    assert slots.drop_idle() is None


def test_sequences_whose_prompt_is_recorded_begin_at_its_start() -> None:
    """Of shared tokens nothing would be recorded."""
    slots = Slots(2, can_share=True)
    run_and_release(slots, [1, 2, 3])
    place = slots.take([1, 2, 3, 4], can_begin_elsewhere=False)
    assert place
    assert place.num_shared == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=6)), max_size=40))
def test_what_is_shared_is_there(events: list[tuple[int, list[int]]]) -> None:
    """Whatever is taken, run and released: a slot is never given twice, and shared tokens are those of the donor."""
    slots, running, kept = Slots(3, can_share=True), {}, {}
    for event, ids in events:
        if event == 0 and running:
            slot, tokens = running.popitem()
            slots.release(slot, tokens)
            kept[slot] = tokens
            continue
        if event == 1 and (dropped := slots.drop_idle()) is not None:
            del kept[dropped]
            continue
        place = slots.take(ids)
        if place is None:
            continue
        assert place.slot not in running
        donor = place.slot if place.donor is None else place.donor
        if place.num_shared:
            assert (running | kept)[donor][: place.num_shared] == ids[: place.num_shared]
        assert place.dropped is None or place.dropped == place.slot
        kept.pop(place.slot, None)
        slots.set_ready(place.slot, len(ids))
        running[place.slot] = ids
