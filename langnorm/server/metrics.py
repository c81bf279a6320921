"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from langnorm.engines.base import Engine
from langnorm.server.gate import Gate
from langnorm.trace import KEY

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TENTHS = tuple(i / 10 for i in range(1, 11))


class Metrics:
    """Counts requests, tokens, seconds and intensities of one server.

    Args:
        gate: Whose running requests are shown.
        engine: Whose queue is shown, where it tells how long that is.
    """

    def __init__(self, gate: Gate, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "langnorm_requests",
            "Requests for completions, by their status.",
            ["status"],
            registry=registry,
        )
        running = Gauge("langnorm_requests_running", "Requests that wait or are answered.", registry=registry)
        running.set_function(lambda: gate.num_running)
        waiting = Gauge("langnorm_sequences_waiting", "Sequences in the queue of the engine.", registry=registry)
        waiting.set_function(lambda: getattr(engine, "num_waiting", 0))
        self._prompt_tokens = Counter("langnorm_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._cached_tokens = Counter(
            "langnorm_cached_prompt_tokens", "Of these, tokens that were not run again.", registry=registry
        )
        self._tokens = Counter("langnorm_generated_tokens", "Tokens of answers.", registry=registry)
        self._reasoning_tokens = Counter(
            "langnorm_reasoning_tokens", "Of these, tokens of reasoning.", registry=registry
        )
        self._seconds = Histogram(
            "langnorm_request_seconds", "Seconds to the end of an answer.", buckets=_SECONDS, registry=registry
        )
        self._first_seconds = Histogram(
            "langnorm_first_chunk_seconds",
            "Seconds to a stream's first chunk.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._intensity = Histogram(
            "langnorm_intensity",
            "Intensity of answers, 0 to 1, as far as it is known.",
            buckets=_TENTHS,
            registry=registry,
        )
        self._steps = Counter(
            "langnorm_steps", "Steps of answers, by whether their intensity is low.", ["low"], registry=registry
        )

    def text(self) -> bytes:
        """Return all of it in Prometheus' format."""
        return generate_latest(self._registry)

    def count_request(self, status: int) -> None:
        """Count a request for a completion that has ended with this status."""
        self._requests.labels(str(status)).inc()

    def count_first_chunk(self, seconds: float) -> None:
        """Count the seconds to the first chunk of a stream."""
        self._first_seconds.observe(seconds)

    def count_answers(self, messages: Sequence[AIMessage], seconds: float) -> None:
        """Count the answers to one request, and the seconds to their end."""
        self._seconds.observe(seconds)
        usages = [message.usage_metadata for message in messages if message.usage_metadata]
        if usages:
            self._prompt_tokens.inc(usages[0]["input_tokens"])
            self._cached_tokens.inc(usages[0].get("input_token_details", {}).get("cache_read", 0))
        for usage in usages:
            self._tokens.inc(usage["output_tokens"])
            self._reasoning_tokens.inc(usage.get("output_token_details", {}).get("reasoning", 0))
        for message in messages:
            found = message.response_metadata.get(KEY) or {}
            if (intensity := found.get("intensity")) is not None:
                self._intensity.observe(intensity)
            for step in found.get("steps", ()):
                if step["low"] is not None:
                    self._steps.labels(str(step["low"]).lower()).inc()
