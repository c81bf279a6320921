"""The option `layers` becomes checked indices."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import ModelError, OptionError
from langnorm.norms.layers import select_layers


@pytest.mark.parametrize(
    ("num_layers", "expected"),
    [
        (1, (0,)),
        (2, (0,)),
        (4, (2,)),
        (7, (5,)),
        (8, (6,)),
        (12, (9, 10)),
        (28, (21, 22, 23, 24, 25, 26)),
        (36, tuple(range(27, 35))),
    ],
)
def test_late_is_the_last_quarter_without_the_last_layer(num_layers, expected) -> None:
    """The default follows the paper's layers, with a fallback for shallow models."""
    assert select_layers("late", num_layers) == expected


@pytest.mark.parametrize(
    ("num_layers", "expected"),
    [
        (1, (0,)),
        (2, (0,)),
        (3, (0, 1)),
        (12, (9, 10)),
        (24, (21, 22)),
        (28, (25, 26)),
        (36, (32, 33, 34)),
        (80, (*range(72, 79),)),
    ],
)
def test_deep_is_the_last_tenth_without_the_last_layer(num_layers, expected) -> None:
    """Two layers at least."""
    assert select_layers("deep", num_layers) == expected


@pytest.mark.parametrize(
    ("num_layers", "expected"),
    [
        (1, (0,)),
        (2, (0,)),
        (3, (1,)),
        (4, (1,)),
        (5, (2,)),
        (12, (5, 6)),
        (20, (9, 10, 11)),
        (24, (10, 11, 12, 13)),
        (28, (12, 13, 14, 15)),
        (36, (16, 17, 18, 19)),
        (80, (36, 37, 38, 39)),
    ],
)
def test_middle_is_from_45_to_60_percent_of_the_depth(num_layers, expected) -> None:
    """Four layers at most, one at least."""
    assert select_layers("middle", num_layers) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", tuple(range(28))),
        ([20, 3, 20], (3, 20)),
        ((-1, 0, 27), (0, 27)),
        (range(5, 8), (5, 6, 7)),
        ([np.int64(4), torch.tensor(2)], (2, 4)),
    ],
)
def test_selection_of_indices(layers, expected) -> None:
    """Indices come back ascending, unique, counted from the start, as plain integers."""
    selected = select_layers(layers, 28)

    assert selected == expected
    assert all(type(layer) is int for layer in selected)


@pytest.mark.parametrize("layer", [40, 28, -29])
def test_index_outside_the_model_is_an_error(layer) -> None:
    """The message names the index, the range and what to use."""
    with pytest.raises(OptionError) as error:
        select_layers([3, layer], 28)

    assert str(error.value) == (
        f'Layer `{layer}` is outside this model (0 to 27). Use `layers="late"` or indices below 28.'
    )


@pytest.mark.parametrize("layers", ["early", "", b"late", [], (), 5, None, 2.0, {1: 2}, {1, 2}, True])
def test_other_selection_is_an_error(layers) -> None:
    """What is no selection is named together with the allowed values."""
    with pytest.raises(
        OptionError, match=re.escape('Use `"late"`, `"deep"`, `"middle"`, `"all"` or a list of indices')
    ) as error:
        select_layers(layers, 28)

    assert f"`{layers!r}`" in str(error.value)


def test_misspelt_selection_gets_a_hint() -> None:
    """A name close to an allowed one is answered with that one."""
    with pytest.raises(OptionError, match=re.escape("Did you mean `late`?")):
        select_layers("lates", 28)


@pytest.mark.parametrize("layer", [True, 1.0, "3", None, [1]])
def test_entry_that_is_no_index_is_an_error(layer) -> None:
    """Booleans, floats and strings are no indices, even where Python would take them."""
    with pytest.raises(OptionError, match=re.escape(f"Layer `{layer!r}` is a `{type(layer).__name__}`")):
        select_layers([0, layer], 28)


def test_model_without_layers_is_an_error() -> None:
    """A model of no layers has nothing to select."""
    with pytest.raises(ModelError, match="`0` decoder layers"):
        select_layers("all", 0)


@given(num_layers=st.integers(1, 200))
def test_late_layers_lie_inside_and_leave_out_the_last(num_layers) -> None:
    """Late layers exist at every depth, are consecutive, and skip the last layer of deeper models."""
    late = select_layers("late", num_layers)

    assert late == tuple(range(late[0], late[-1] + 1))
    assert late[0] >= 0
    assert late[-1] == max(0, num_layers - 2)
    assert len(late) == max(1, num_layers // 4 - 1)


@given(data=st.data(), num_layers=st.integers(1, 64))
def test_selection_is_a_set_of_layers(data, num_layers) -> None:
    """Order, repetition and sign of the indices do not matter, and selecting again changes nothing."""
    layers = data.draw(st.lists(st.integers(-num_layers, num_layers - 1), min_size=1))
    selected = select_layers(layers, num_layers)

    assert set(selected) == {layer % num_layers for layer in layers}
    assert list(selected) == sorted(set(selected))
    assert select_layers(selected, num_layers) == selected
    assert select_layers(data.draw(st.permutations(layers)), num_layers) == selected
    assert select_layers(layers + layers, num_layers) == selected


@given(
    num_layers=st.integers(1, 64),
    excess=st.integers(0, 1000),
    is_negative=st.booleans(),
)
def test_every_index_outside_is_refused(num_layers, excess, is_negative) -> None:
    """No index outside the model is wrapped around or clipped."""
    layer = -num_layers - 1 - excess if is_negative else num_layers + excess

    with pytest.raises(OptionError, match="outside this model"):
        select_layers([layer], num_layers)


def test_import_does_not_load_torch() -> None:
    """Layers can be checked as an option without importing torch or transformers."""
    code = (
        "import sys; from langnorm.norms.layers import select_layers; select_layers('late', 28);"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
