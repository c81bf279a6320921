"""langnorm as a model of lm-evaluation-harness, where it is called `langnorm`.

The harness loads no models of other packages: `langnorm lm-eval` imports this one first and then hands over to it. From
Python, `import langnorm_lm_eval` before `lm_eval.simple_evaluate(model="langnorm", ...)` does the same.
"""

from langnorm_lm_eval.model import LangNormLM

__all__ = ["LangNormLM"]
