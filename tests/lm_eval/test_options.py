"""The arguments of the model: what each name means, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from langnorm.errors import OptionError


@pytest.fixture
def read():
    """Returns the function that reads arguments."""
    from langnorm_lm_eval.options import read_model_args

    return lambda **model_args: read_model_args(model_args)


def test_arguments_go_where_they_belong(read) -> None:
    """To the chat model, to its loader, or to neither."""
    fields, options = read(
        pretrained="folder",
        dtype="float32",
        revision="main",
        batch_size="8",
        recursion={"max_extra": 2},
        max_length=512,
    )
    loader = {"dtype": "float32", "revision": "main"}
    assert fields == {"model": "folder", "model_kwargs": loader, "recursion": {"max_extra": 2}}
    assert (options.batch_size, options.most_sequences, options.max_length) == (8, 8, 512)


@pytest.mark.parametrize(
    ("model_args", "fields"),
    [
        ({"recursion.max_extra": 2, "recursion.alpha": 0.5}, {"recursion": {"max_extra": 2, "alpha": 0.5}}),
        ({"recursion": True, "recursion.alpha": 0.5}, {"recursion": {"alpha": 0.5}}),
        ({"recursion": '{"max_extra": 2}'}, {"recursion": {"max_extra": 2}}),
        ({"recursion": '{"max_extra": 2}', "recursion.alpha": 0.5}, {"recursion": {"max_extra": 2, "alpha": 0.5}}),
        ({"steering": True}, {"steering": {}}),
        ({"steering": False}, {"steering": None}),
        ({"selection.prune.rule": "half"}, {"selection": {"prune": {"rule": "half"}}}),
        ({"layers": "[3, 4]"}, {"layers": [3, 4]}),
        ({"model_kwargs.dtype": "float32", "revision": "x"}, {"model_kwargs": {"dtype": "float32", "revision": "x"}}),
        ({"chat_template": "some.jinja"}, {"model_kwargs": {"chat_template": Path("some.jinja")}}),
        ({"chat_template": "{% if x %}"}, {"model_kwargs": {"chat_template": "{% if x %}"}}),
        ({"device": "cpu"}, {"model_kwargs": {"device_map": "cpu"}}),
        ({"device": "cpu", "device_map": "auto"}, {"model_kwargs": {"device_map": "auto"}}),
        ({"device": "cpu", "engine": "llamacpp"}, {"engine": "llamacpp"}),
    ],
)
def test_options_of_options_are_given_in_several_forms(model_args, fields, read) -> None:
    """One by one, as JSON, as a file, or as a word for all defaults."""
    assert read(**model_args)[0] == fields


def test_the_harness_default_device_is_for_machines_that_have_it(read, monkeypatch) -> None:
    """It names a GPU whatever the machine is."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert read(device="cuda:0")[0] == {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert read(device="cuda:0")[0] == {"model_kwargs": {"device_map": "cuda:0"}}


@pytest.mark.parametrize(("batch_size", "most", "expected"), [("auto", None, 16), ("auto:4", 32, 32), (3, 32, 3)])
def test_batch_sizes_are_numbers_or_automatic(batch_size, most, expected, read) -> None:
    """An automatic one is the largest that is allowed: what does not fit is run in smaller batches."""
    assert read(batch_size=batch_size, max_batch_size=most)[1].most_sequences == expected


@pytest.mark.parametrize(
    ("model_args", "error"),
    [
        ({"pretraned": "x"}, "no argument `pretraned`. Did you mean `pretrained`"),
        ({"pretrained": "x", "model": "y"}, "`model` and `model`|two names of one argument"),
        ({"temperature": 0.5}, "Use `--gen_kwargs temperature=...`"),
        ({"max_tokens": 5}, "Use `--gen_kwargs max_gen_toks=...`"),
        ({"n": 5}, "asked for by `selection.n`"),
        ({"recursion": "{max_extra: 2}"}, "is not JSON"),
        ({"recursion": "x", "recursion.alpha": 0.5}, "given twice, or as a whole"),
        ({"recursion": {"alpha": 1}, "recursion.alpha": 0.5}, "given twice, or as a whole"),
        ({"dtype": "x", "model_kwargs": {"dtype": "y"}}, "`dtype` is given twice"),
        ({"dtype": "x", "model_kwargs": 3}, "No dict is given"),
        ({"batch_size": 0}, "`batch_size=0` is not allowed"),
        ({"batch_size": "many"}, "`batch_size='many'` is not allowed"),
        ({"max_length": 1}, "`max_length=1` is not allowed"),
        ({"max_gen_toks": 0}, "`max_gen_toks=0` is not allowed"),
        ({"enable_thinking": "yes"}, "`enable_thinking='yes'` is not allowed"),
        ({"think_end_token": 1.5}, "`think_end_token=1.5` is not allowed"),
        ({"chat_template_args": "x"}, "`chat_template_args='x'` is not allowed"),
        ({"seed": "x"}, "`seed='x'` is not allowed"),
    ],
)
def test_mistakes_are_named(model_args, error, read) -> None:
    """With what is allowed, before anything is loaded."""
    with pytest.raises(OptionError, match=error):
        read(**model_args)
