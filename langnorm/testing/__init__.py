r"""For tests of what is built on langnorm: an engine that answers from a script, and messages with a trace.

Neither needs weights, so tests with them take milliseconds:

    >>> from langnorm import ChatLangNorm, NormTrace
    >>> from langnorm.testing import ScriptedEngine, message_with_norms
    >>> engine = ScriptedEngine(["<think>\n6 * 7 = 42\n</think>\n\nIt is 42."])
    >>> reply = ChatLangNorm(engine=engine).invoke("What is 6 * 7?")
    >>> reply.content
    'It is 42.'
    >>> reply.additional_kwargs["reasoning_content"]
    '6 * 7 = 42'
    >>> "What is 6 * 7?" in engine.prompts[0]
    True
    >>> NormTrace.from_message(message_with_norms("It is 42.", intensities=0.05)).low_steps
    (0,)
"""

from langnorm.testing.engine import ScriptedAnswer, ScriptedEngine
from langnorm.testing.messages import message_with_norms

__all__ = ["ScriptedAnswer", "ScriptedEngine", "message_with_norms"]
