"""Arrays in JSON: their bytes in base64, little-endian, so that every bit is kept."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.number[Any])


def to_text(values: NDArray[Any]) -> str:
    """Return an array as text."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def from_text(name: str, text: str, kind: type[_Number]) -> NDArray[_Number]:
    """Return the array (N,) that was made a text.

    Args:
        name: Of the array, for the error.
        text: As `to_text` returns it.
        kind: Of its numbers.

    Raises:
        ValueError: The text is no base64, or its bytes are no whole number of values.
    """
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.dtype(kind).newbyteorder("<"))
    except (ValueError, binascii.Error) as error:
        msg = f"its `{name}` are no array in base64 ({error})"
        raise ValueError(msg) from error
    return values.astype(kind)
