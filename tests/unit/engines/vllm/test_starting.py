"""What langnorm makes of a configuration of vLLM's, whoever starts the engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from langnorm.engines.vllm.starting import CONFIG_NAME, adapt
from langnorm.errors import OptionError


def config_with(
    own: Any, *, enable_sp: bool = False, fast_prefill: bool = False, speculative: Any = None, **parallel: Any
) -> SimpleNamespace:
    """Returns a configuration with these settings of langnorm's."""
    return SimpleNamespace(
        additional_config={"other": 1} if own is None else {"other": 1, CONFIG_NAME: own},
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=fast_prefill),
        compilation_config=SimpleNamespace(pass_config=SimpleNamespace(enable_sp=enable_sp)),
        model_config=SimpleNamespace(logits_processors=["theirs"], max_logprobs=20),
        parallel_config=SimpleNamespace(**{"data_parallel_size": 1, "enable_dbo": False, "ubatch_size": 0, **parallel}),
        speculative_config=speculative,
        use_v2_model_runner=True,
    )


def test_an_engine_that_is_not_for_langnorm_stays_as_it_is() -> None:
    """Also where langnorm could not observe it."""
    config = config_with(None, data_parallel_size=2)
    adapt(config)
    assert config == config_with(None, data_parallel_size=2)


def test_an_engine_with_settings_of_another_kind_stays_as_it_is() -> None:
    """Platforms of others have objects there."""
    settings = object()
    config = config_with(None)
    config.additional_config = settings
    adapt(config)
    assert config.additional_config is settings


def test_settings_are_completed() -> None:
    """Langnorm's choice of tokens comes after that of others, by the model runner that is used."""
    config = config_with({})
    adapt(config)
    assert config.additional_config == {"other": 1, CONFIG_NAME: {"in_process": False, "interventions": False}}
    assert config.model_config.logits_processors == ["theirs", "langnorm_vllm.logits_processors:TokenChoiceV2"]
    assert config.model_config.max_logprobs == 20  # others ask this engine too


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (config_with({"intervention": True}), "has no `intervention`. Use `interventions`"),
        (config_with({"interventions": "all"}), "Use True or False"),
        (config_with(3), "Use an object"),
        (config_with({}, data_parallel_size=2), "`data_parallel_size` is not possible"),
        (config_with({}, pipeline_parallel_size=2), "`pipeline_parallel_size` is not possible"),
        (config_with({}, enable_dbo=True), "`enable_dbo` is not possible"),
        (config_with({}, ubatch_size=2), "`ubatch_size` is not possible"),
        (config_with({}, enable_hc_sp=True), "`enable_hc_sp` is not possible"),
        (config_with({}, enable_batch_sharded_sampling=True), "`enable_batch_sharded_sampling` is not possible"),
        (config_with({}, speculative=SimpleNamespace(method="ngram")), "`speculative_config` is not possible"),
        (config_with({}, fast_prefill=True), "`kv_sharing_fast_prefill` is not possible"),
        (config_with({}, enable_sp=True), "`enable_sp` is not possible .* some of the tokens only. Leave it out"),
    ],
)
def test_what_is_refused(config, words) -> None:
    """Before a model is loaded."""
    with pytest.raises(OptionError, match=words):
        adapt(config)
