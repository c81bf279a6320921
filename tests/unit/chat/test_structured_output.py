"""A schema and a method are checked before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from langnorm import ChatLangNorm
from langnorm.errors import OptionError
from tests.support.odd_values import ODD_VALUES

SCHEMA = {"title": "Person", "type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize("method", [*ODD_VALUES, None], ids=repr)
def test_a_method_of_another_type_is_refused(method: Any) -> None:
    """The error names the three methods."""
    with pytest.raises(OptionError, match='method=.*"json_schema", "function_calling" or "json_mode"'):
        ChatLangNorm().with_structured_output(SCHEMA, method=method)


def test_a_misspelt_method_has_a_hint() -> None:
    """The closest method is named."""
    with pytest.raises(OptionError, match="Did you mean `json_schema`"):
        ChatLangNorm().with_structured_output(SCHEMA, method="json-schema")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize(
    "schema",
    [
        *(value for value in ODD_VALUES if not isinstance(value, dict)),
        *(
            {"type": ["x"]},
            {"type": [3]},
            {"title": 3},
            {"type": "function", "function": {"name": "f", "parameters": 3}},
        ),
        {"name": ["x"], "title": np.array([1, 2])},
    ],
    ids=repr,
)
def test_what_is_not_a_schema_is_refused(schema: Any, method: Any) -> None:
    """The error says what can be one, also where LangChain's conversion fails in another way."""
    with pytest.raises(OptionError, match=r"is not a schema|cannot be (held to|written as JSON): ."):
        ChatLangNorm().with_structured_output(schema, method=method)


def test_only_json_mode_needs_no_schema() -> None:
    """Without a schema the answer is any JSON object, and the other methods say that they need one."""
    assert ChatLangNorm().with_structured_output(None, method="json_mode")
    with pytest.raises(OptionError, match="`schema=None` is not allowed with"):
        ChatLangNorm().with_structured_output(None)
