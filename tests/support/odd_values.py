"""Values of the wrong type that users give to options by mistake."""

from __future__ import annotations

import numpy as np

ODD_VALUES = (
    *([], ["x"], {}, {"a": 1}, {1: 2}, (), ("x",), set(), {1}),
    *(b"", b"x", "", True, False, 0, 3, 1.5, float("nan")),
    *(np.float64(1.5), np.int64(1), np.array([1, 2]), np.array(["a", "b"])),
    ...,
)
"""None of them is a name of anything, and some cannot be hashed or compared."""
