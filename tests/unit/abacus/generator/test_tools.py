"""Tests of the tools part of the generator."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from langnorm.abacus.generator.names import belongs, identifier, value_string
from langnorm.abacus.generator.tool_domains import DOMAINS
from langnorm.abacus.generator.tool_schemas import KNOWN_NAMES
from langnorm.abacus.generator.tools import choice, draw

if TYPE_CHECKING:
    from langnorm.abacus.generator.base import Example, Split

_COUNT = 500
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_PYTHON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
# Strings of a third-party test suite that must not leak into training.
_RESERVED = (
    "magic_function",
    "my_adder_tool",
    "get_weather",
    "san francisco",
    "random_name",
    "parrot",
    "erick",
)


@pytest.fixture(scope="module")
def examples() -> dict[Split, list[Example]]:
    """Draw some examples of each split."""
    drawn: dict[Split, list[Example]] = {}
    for split in _SPLITS:
        rng = random.Random(split)
        drawn[split] = [draw(rng, split) for _ in range(_COUNT)]
    return drawn


def _all(examples: dict[Split, list[Example]]) -> list[Example]:
    return [example for drawn in examples.values() for example in drawn]


def _functions(example: Example) -> dict[str, dict[str, Any]]:
    return {tool["function"]["name"]: tool["function"] for tool in example.tools}


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [call["function"] for call in message.get("tool_calls", ())]


def _tool_names(example: Example) -> set[str]:
    functions = _functions(example)
    return set(functions) | {name for function in functions.values() for name in function["parameters"]["properties"]}


def test_calls_validate_against_schemas(examples: dict[Split, list[Example]]) -> None:
    """Every call names an offered tool and gives its arguments, in order, with the right types."""
    for example in _all(examples):
        functions = _functions(example)
        assert len(functions) == len(example.tools)
        for call in (call for message in example.messages for call in _calls(message)):
            parameters = functions[call["name"]]["parameters"]
            properties = parameters["properties"]
            arguments = call["arguments"]
            assert set(parameters.get("required", ())) <= set(arguments)
            assert list(arguments) == [name for name in properties if name in arguments]
            for name, value in arguments.items():
                schema = properties[name]["anyOf"][0] if "anyOf" in properties[name] else properties[name]
                assert isinstance(value, _PYTHON_TYPES[schema["type"]])
                assert isinstance(value, bool) == (schema["type"] == "boolean")
                assert value in schema.get("enum", [value])


def test_values_of_calls_were_said_before(examples: dict[Split, list[Example]]) -> None:
    """Every value but a boolean stands verbatim in an earlier message of the user or a tool."""
    for example in _all(examples):
        said = ""
        for message in example.messages:
            for call in _calls(message):
                for value in call["arguments"].values():
                    parts = value if isinstance(value, list) else [value]
                    assert all(isinstance(part, bool) or str(part) in said for part in parts)
            if message["role"] in ("user", "tool"):
                said += message["content"] + "\n"


def test_messages_have_the_agreed_shape(examples: dict[Split, list[Example]]) -> None:
    """Only the last message may think, and the answer repeats its calls or its content."""
    for example in _all(examples):
        last = example.messages[-1]
        assert last["role"] == "assistant"
        assert bool(last.get("reasoning_content")) == example.enable_thinking
        assert not any("reasoning_content" in message for message in example.prompt)
        calls = _calls(last)
        if calls:
            assert last["content"] == ""
            assert json.loads(example.answer or "") == calls
        else:
            assert example.answer == last["content"] != ""
        assert example.skill == "tools"
        assert set(example.details) == {"form", "names", "num_tools"}
        assert example.details["num_tools"] == len(example.tools)


def test_held_out_names_stay_out_of_training(examples: dict[Split, list[Example]]) -> None:
    """Random names of training and of development and test have none in common."""
    names = {
        split: {name for example in drawn for name in _tool_names(example)} - KNOWN_NAMES
        for split, drawn in examples.items()
    }
    assert len(names["train"]) > _COUNT
    assert not names["train"] & (names["dev"] | names["test"])
    for example in examples["dev"]:
        if example.details["names"] == "random":
            assert all(belongs(name, "dev") for name in _functions(example))


def test_reserved_strings_never_appear(examples: dict[Split, list[Example]]) -> None:
    """Nothing that a third-party test suite asks is seen in training."""
    for example in examples["train"]:
        text = json.dumps([example.messages, example.tools], ensure_ascii=False).lower()
        assert not any(reserved in text for reserved in _RESERVED)


def test_names_can_be_chosen() -> None:
    """The kind of names that the caller asks for is the kind it gets."""
    rng = random.Random(0)
    for _ in range(100):
        known = draw(rng, "train", "known")
        assert known.details["names"] == "known"
        assert _tool_names(known) <= KNOWN_NAMES
        made_up = draw(rng, "test", "random")
        assert made_up.details["names"] == "random"
        assert all(belongs(name, "test") for name in _functions(made_up))


def test_same_seed_draws_same_examples() -> None:
    """An example is a function of the state of the random number generator."""
    first, second = random.Random(3), random.Random(3)
    assert [draw(first, "train") for _ in range(50)] == [draw(second, "train") for _ in range(50)]


def test_forms_and_number_of_tools_vary(examples: dict[Split, list[Example]]) -> None:
    """All forms occur, and so do conversations with none to five tools."""
    details = [example.details for example in _all(examples)]
    forms = {detail["form"] for detail in details}
    assert forms == {"call", "calls", "no_arguments", "none", "answer", "error", "next_call"}
    assert {detail["num_tools"] for detail in details} >= {0, 1, 2, 3, 4}


def test_schemas_have_the_form_langchain_emits(examples: dict[Split, list[Example]]) -> None:
    """Parameters have an object type, and `required` only where an argument is required."""
    for tool in (tool for example in _all(examples) for tool in example.tools):
        assert list(tool) == ["type", "function"]
        assert list(tool["function"]) == ["name", "description", "parameters"]
        parameters = tool["function"]["parameters"]
        assert parameters["type"] == "object"
        assert parameters.get("required") != []
        assert set(parameters.get("required", ())) <= set(parameters["properties"])


def test_domains_offer_enough_wordings() -> None:
    """Each domain can be asked for in at least four plain and four implied ways."""
    assert len(DOMAINS) >= 40
    for domain in DOMAINS:
        assert len(set(domain.plain)) >= 4
        assert len(set(domain.implied)) >= 4
        assert len(set(domain.descriptions)) >= 3
        slots = [f"{{{argument.slot}}}" for argument in domain.arguments if argument.required]
        assert all(slot in template for slot in slots for template in domain.plain + domain.implied)


@pytest.mark.parametrize("split", _SPLITS)
def test_identifiers_are_short_and_of_their_split(split: Split) -> None:
    """Random identifiers are valid Python names of 3 to 16 characters."""
    rng = random.Random(1)
    for _ in range(200):
        name = identifier(rng, split)
        assert name.isidentifier()
        assert 3 <= len(name) <= 16
        assert belongs(name, split)


def test_values_are_varied() -> None:
    """Strings to be copied hardly repeat, and about one in eight is not ASCII."""
    rng = random.Random(2)
    values = [value_string(rng) for _ in range(2000)]
    assert len(set(values)) > 1300
    assert 0.08 < sum(not value.isascii() for value in values) / len(values) < 0.2


def test_thoughts_look_through_the_tools_in_order() -> None:
    """Every one, unless the user names the tool; the name of the one that fits follows the same words as before."""
    rng = random.Random(0)
    found = looked_for = 0
    for _ in range(400):
        example = choice(rng, "train")
        thought, calls = example.messages[-1].get("reasoning_content"), _calls(example.messages[-1])
        if not thought or example.details["form"] != "call":
            continue
        found += 1
        if ": " not in thought:
            assert calls[0]["name"] in thought
            continue
        looked_for += 1
        places = [thought.index(f"{name}, ") for name in _functions(example)]
        assert places == sorted(places)
        gives = thought.split(f"{calls[0]['name']}, ")[1].split(":")[0]
        assert thought.count(f" {gives}: {calls[0]['name']}.") == 2
    assert found > 120
    assert looked_for > found / 2


def test_a_request_that_no_tool_fits_is_looked_up_in_vain() -> None:
    """The thought says what each tool gives, none of which is wanted."""
    rng = random.Random(0)
    drawn = [choice(rng, "train") for _ in range(1_500)]
    thoughts = [e.messages[-1].get("reasoning_content", "") for e in drawn if e.details["form"] == "none"]
    leads = ("The user wants ", "The user asks for ", "This is about ")
    in_vain = [thought for thought in thoughts if "No tool fits." in thought and ": " in thought]
    assert len(in_vain) > 20
    for thought in in_vain:
        listed, _, wanted = thought.removesuffix(". No tool fits.").rpartition(". ")
        (gist,) = (wanted.removeprefix(lead) for lead in leads if wanted.startswith(lead))
        assert f", {gist}:" not in listed
