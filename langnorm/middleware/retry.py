"""NormRetryMiddleware: flags, retries or stops at the weak answers of an agent's model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langnorm.chat.settings import TOOL_NAMES
from langnorm.checks import check_choice, check_integer
from langnorm.errors import MissingDependencyError, OptionError
from langnorm.middleware.note import note_template, weak_steps
from langnorm.retry.attempts import Attempts, with_metadata
from langnorm.retry.escalation import (
    DEFAULT_ESCALATION,
    NO_CHANGE,
    EscalationOption,
    RetryChange,
    resolve_change,
    settings_for,
    settings_for_refining,
)
from langnorm.retry.policy import MAX_LOW_SHARE, OnExhausted, RetryPolicy
from langnorm.trace import KEY
from langnorm.wrapped_models import change_models, may_be_langnorm, unwrap_model

try:
    from langchain.agents.middleware import AgentMiddleware, hook_config
    from langchain.agents.middleware.types import ExtendedModelResponse, ModelRequest, ModelResponse, PrivateStateAttr
    from langgraph.channels.untracked_value import UntrackedValue
    from langgraph.constants import TAG_NOSTREAM
    from langgraph.errors import GraphBubbleUp
    from langgraph.types import Command
except ImportError as error:
    msg = 'Middleware needs langchain. Install it: `pip install "langnorm[agents]"`.'
    raise MissingDependencyError(msg) from error

OnWeak = Literal["flag", "retry", "stop"]
"""What is done about a weak answer."""

_NOT_RUN = "This tool was not run: the reasoning that called it was weak."

Answer = ModelResponse[Any] | ExtendedModelResponse[Any]


class NormRetryMiddleware(AgentMiddleware[Any, Any, Any]):
    """Flags, retries or stops at the answers of an agent's model that have too many low steps.

    Every message with norms says in `response_metadata["langnorm"]` whether it is `weak` (None while intensity is
    unknown), and what its `attempts` were, as with `NormRetry`. Messages of other models pass as they are.

    In langgraph's messages mode, an answer that may have to be retried comes as one whole message when it is decided;
    rejected attempts are never seen. An exception of the first attempt is raised, so that other middleware can see it;
    of a retry it is recorded, and the best answer so far is kept.

    Args:
        max_retries: Most retries of one call of the model.
        max_low_share: Share of low steps, 0 to 1, above which an answer is weak.
        on_weak: `"flag"` only says so on the message; `"retry"` asks the model again; `"stop"` ends the run, and tools
            that the weak message calls are not run: a message of theirs says so.
        escalation: What the retries change, as with `NormRetry`.
        on_exhausted: When all attempts are weak, `"best"` keeps the best, `"last"` the last; `"raise"` raises.
        run_budget: Most retries in one run of the agent, over all calls of the model; None for no such limit. It starts
            afresh with every run, a resumed one included. A subclass has a budget of its own.
        retry_tool_calls: Whether weak answers that call tools are retried too.
        note: Whether a final answer that stays weak is quoted back to the model once per run, to be redone; or the text
            that does so, with `{steps}` where the weak steps go. The weak message then says `noted`: their indices.

    Raises:
        OptionError: A value is not allowed.

    Example:
        .. code-block:: python

            from langchain.agents import create_agent
            from langnorm import ChatLangNorm
            from langnorm.middleware import NormRetryMiddleware

            agent = create_agent(ChatLangNorm(), tools, middleware=[NormRetryMiddleware(max_retries=2)])
    """

    def __init__(
        self,
        *,
        max_retries: int = 2,
        max_low_share: float = MAX_LOW_SHARE,
        on_weak: OnWeak = "retry",
        escalation: EscalationOption = DEFAULT_ESCALATION,
        on_exhausted: OnExhausted = "best",
        run_budget: int | None = None,
        retry_tool_calls: bool = False,
        note: bool | str = False,
    ) -> None:
        super().__init__()
        check_integer("max_retries", max_retries, low=0)
        policy = RetryPolicy(
            max_low_share=max_low_share,
            max_attempts=1 + max_retries,
            escalation=escalation,
            on_exhausted=on_exhausted,
            retry_tool_calls=retry_tool_calls,
        )
        check_choice("on_weak", on_weak, get_args(OnWeak))
        if run_budget is not None:
            check_integer("run_budget", run_budget, low=0)
        if note and on_weak == "stop":
            msg = f'`note={note!r}` is not allowed with `on_weak="stop"`, which ends the run. Use "flag" or "retry".'
            raise OptionError(msg)
        # Where nothing is retried, the only attempt is kept whatever it is.
        self.policy = policy if on_weak == "retry" else replace(policy, max_attempts=1, on_exhausted="best")
        self.on_weak = on_weak
        self.run_budget = run_budget
        self.note = note_template(note)
        self.tools = []
        # Named after the middleware: of two in one agent, each counts for itself.
        self.spent_key, self.noted_key = f"norm_retries_{self.name}", f"norm_noted_{self.name}"
        fields = {
            self.spent_key: NotRequired[Annotated[int, UntrackedValue, PrivateStateAttr]],
            self.noted_key: NotRequired[Annotated[bool, UntrackedValue, PrivateStateAttr]],
        }
        self.state_schema = TypedDict("NormRetryState", fields)  # type: ignore[misc]

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Answer:
        """Return the kept answer of the model."""
        call = _Call(self, request)
        while call.needs_attempt:
            change = NO_CHANGE
            try:
                change = call.next_change()
                call.add(change, handler(call.build_request(change)))
            except GraphBubbleUp:  # langgraph's way to interrupt
                raise
            except Exception as error:
                if call.is_new:
                    raise
                call.fail(change, error)
        return call.answer()

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Answer:
        """Return the kept answer of the model."""
        call = _Call(self, request)
        while call.needs_attempt:
            change = NO_CHANGE
            try:
                # A model may have to be loaded for that, or a server asked.
                change = await asyncio.to_thread(call.next_change)
                call.add(change, await handler(call.build_request(change)))
            except GraphBubbleUp:
                raise
            except Exception as error:
                if call.is_new:
                    raise
                call.fail(change, error)
        return call.answer()

    @hook_config(can_jump_to=["model", "end"])
    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        """Return what ends the run or sends a note back to the model, where the last answer is weak."""
        messages = state["messages"]
        last = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=None)
        if last is None or not (messages[last].response_metadata.get(KEY) or {}).get("weak"):
            return None
        message = messages[last]
        if self.on_weak == "stop":
            answered = {other.tool_call_id for other in messages[last + 1 :] if isinstance(other, ToolMessage)}
            calls = [call for call in message.tool_calls if call["id"] not in answered]
            return {"jump_to": "end", "messages": [_not_run(call) for call in calls]}
        if self.note is None or message.tool_calls or state.get(self.noted_key):
            return None
        if not (steps := weak_steps(message)):
            return None
        text = self.note.format(steps="\n".join(f"- {step}" for step in steps.values()))
        noted = with_metadata(message, noted=list(steps))
        return {"jump_to": "model", "messages": [noted, HumanMessage(text)], self.noted_key: True}

    @hook_config(can_jump_to=["model", "end"])
    async def aafter_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Return what ends the run or sends a note back to the model, where the last answer is weak."""
        return self.after_model(state, runtime)


class _Call:
    """One call of an agent's model, with its retries."""

    def __init__(self, middleware: NormRetryMiddleware, request: ModelRequest[Any]) -> None:
        self._middleware = middleware
        self._request = request
        self._attempts = Attempts(middleware.policy)
        state: Any = request.state
        self._num_spent: int = state.get(middleware.spent_key, 0)
        self._most_retries = middleware.policy.max_attempts - 1
        if middleware.run_budget is not None:
            self._most_retries = min(self._most_retries, middleware.run_budget - self._num_spent)
        # What is shown cannot be taken back.
        self._is_hidden = self._most_retries > 0 and may_be_langnorm(request.model)

    @property
    def is_new(self) -> bool:
        """Whether there was no attempt yet."""
        return not len(self._attempts)

    @property
    def needs_attempt(self) -> bool:
        """Whether there is another attempt."""
        return self.is_new or (len(self._attempts) <= self._most_retries and self._attempts.need_retry)

    def next_change(self) -> RetryChange:
        """Return what the next attempt changes."""
        if self.is_new:
            return NO_CHANGE
        steps, num_retry = self._middleware.policy.steps, len(self._attempts)
        beginning = self._attempts.best.good_beginning
        return resolve_change(steps, num_retry, self._request.model, self._request.model_settings, beginning)

    def build_request(self, change: RetryChange) -> ModelRequest[Any]:
        """Return the request of an attempt."""
        model, settings = self._request.model, self._request.model_settings
        if change.model is not None:
            bound = {name: value for name, value in unwrap_model(model)[1].items() if name not in TOOL_NAMES}
            model, settings = change.model, settings_for(change.model, bound | settings)  # tools are the request's own
        if self._most_retries > 0:
            settings = settings | settings_for_refining(self._middleware.policy.steps, self._request.model, change)
        model = change_models(model, _hidden) if self._is_hidden else model  # a binding's tags are lost with tools
        return self._request.override(model=model, model_settings={**settings, **change.settings})

    def add(self, change: RetryChange, response: ModelResponse[Any]) -> None:
        """Append an attempt that gave an answer."""
        message = next((message for message in response.result if isinstance(message, AIMessage)), None)
        self._attempts.add(change.to_dict(), message, response)

    def fail(self, change: RetryChange, error: Exception) -> None:
        """Append an attempt that raised."""
        self._attempts.fail(change.to_dict(), error)

    def answer(self) -> Answer:
        """Return the kept answer, and where there is a budget, what was spent of it.

        Raises:
            WeakReasoningError: All attempts were weak and `on_exhausted` is `"raise"`.
        """
        middleware = self._middleware
        chosen = self._attempts.choose()
        answer = self._attempts.build_message(chosen)
        result = [answer if message is chosen.message else message for message in chosen.response.result]
        response: ModelResponse[Any] = replace(chosen.response, result=result)
        num_retries = len(self._attempts) - 1
        if middleware.run_budget is None or not num_retries:
            return response
        spent: Command[Any] = Command(update={middleware.spent_key: self._num_spent + num_retries})
        return ExtendedModelResponse(response, spent)


def _hidden(model: Any) -> Any:
    """Return a model of which langgraph's messages mode shows nothing but what the agent makes of it."""
    if isinstance(model, BaseChatModel):
        return model.model_copy(update={"tags": [*(model.tags or ()), TAG_NOSTREAM]})
    return model


def _not_run(call: Any) -> ToolMessage:
    return ToolMessage(_NOT_RUN, tool_call_id=call["id"], name=call["name"], status="error")
