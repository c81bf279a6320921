"""What each family of models is taught, and how it writes the call of a tool: short templates of the same form."""

from __future__ import annotations

from typing import Any, NamedTuple

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "parts": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = [WEATHER, CLOCK]


class Family(NamedTuple):
    """A family of models.

    Attributes:
        template: What its chat template has of calls.
        one: A call of `weather` with city Oslo, 2 days and parts `["a", "b"]`.
        two: A call of `weather` with city Oslo, then one of `clock` without arguments.
        tokens: Marks that are special tokens.
    """

    template: str
    one: str
    two: str
    tokens: tuple[str, ...] = ()


_ARGUMENTS = '{"city": "Oslo", "days": 2, "parts": ["a", "b"]}'
_OSLO = '{"city": "Oslo"}'
_JSON = f'{{"name": "weather", "arguments": {_ARGUMENTS}}}'
_JSON_TWO = ('{"name": "weather", "arguments": {"city": "Oslo"}}', '{"name": "clock", "arguments": {}}')
_XML = (
    "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    '<parameter=parts>\n["a", "b"]\n</parameter>\n</function>'
)
_XML_OSLO = "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>"
_GLM = (
    "weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n"
    '<arg_key>parts</arg_key>\n<arg_value>["a", "b"]</arg_value>\n'
)
_INVOKE = (
    '<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n<parameter name="days">2</parameter>\n'
    '<parameter name="parts">["a", "b"]</parameter>\n</invoke>'
)
_DSML = (
    '<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="parts" string="false">["a", "b"]</｜DSML｜parameter>\n</｜DSML｜invoke>'
)
_DSML_OSLO = (
    '<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>"
)
_PYTHON = 'weather(city="Oslo", days=2, parts=["a", \'b\'])'


def _deepseek(*calls: str) -> str:
    inner = "\n".join(f"<｜tool▁call▁begin｜>{call}<｜tool▁call▁end｜>" for call in calls)
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def _kimi(*calls: str) -> str:
    inner = "".join(f"<|tool_call_begin|>{call}<|tool_call_end|>" for call in calls)
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


_DEEPSEEK_TOKENS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
_HARMONY_TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>")
_NEXT = "<|call|><|start|>assistant"

FAMILIES: dict[str, Family] = {
    "qwen": Family(
        '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>',
        f"<tool_call>\n{_JSON}\n</tool_call>",
        "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in _JSON_TWO),
    ),
    "qwen3_coder": Family(
        "<tool_call>\n<function=f>\n<parameter=p>\nv\n</parameter>\n</function>\n</tool_call>",
        f"<tool_call>\n{_XML}\n</tool_call>",
        f"<tool_call>\n{_XML_OSLO}\n</tool_call>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>",
    ),
    "glm": Family(
        "<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>v</arg_value>\n</tool_call>",
        f"<tool_call>{_GLM}</tool_call>",
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>\n"
        "<tool_call>clock\n</tool_call>",
    ),
    "llama": Family(
        '<|start_header_id|>{"name": function name, "parameters": dictionary of argument name and its value}',
        f'{{"name": "weather", "parameters": {_ARGUMENTS}}}',
        '{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "clock", "parameters": {}}',
    ),
    "llama_python": Family(
        '<|start_header_id|>{"name": function name, "parameters": dictionary of argument name and its value}',
        f"[{_PYTHON}]",
        '[weather(city="Oslo"), clock()]',
    ),
    "llama_tag": Family(
        "<|python_tag|>",
        f'<|python_tag|>{{"name": "weather", "parameters": {_ARGUMENTS}}}',
        '<|python_tag|>weather.call(city="Oslo")<|python_tag|>clock()',
        ("<|python_tag|>",),
    ),
    "mistral": Family("[TOOL_CALLS][", f"[TOOL_CALLS] [{_JSON}]", f"[TOOL_CALLS] [{', '.join(_JSON_TWO)}]"),
    "mistral_named": Family(
        "[TOOL_CALLS]{{ name }}[ARGS]",
        f"[TOOL_CALLS]weather[ARGS]{_ARGUMENTS}",
        f"[TOOL_CALLS]weather[ARGS]{_OSLO}[TOOL_CALLS]clock[ARGS]{{}}",
        ("[TOOL_CALLS]", "[ARGS]"),
    ),
    "deepseek_r1": Family(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
        _deepseek(f"function<｜tool▁sep｜>weather\n```json\n{_ARGUMENTS}\n```"),
        _deepseek(
            f"function<｜tool▁sep｜>weather\n```json\n{_OSLO}\n```", "function<｜tool▁sep｜>clock\n```json\n{}\n```"
        ),
        _DEEPSEEK_TOKENS,
    ),
    "deepseek_v31": Family(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
        _deepseek(f"weather<｜tool▁sep｜>{_ARGUMENTS}"),
        _deepseek(f"weather<｜tool▁sep｜>{_OSLO}", "clock<｜tool▁sep｜>{}"),
        _DEEPSEEK_TOKENS,
    ),
    "deepseek_v32": Family(
        "<｜DSML｜function_calls>",
        f"<｜DSML｜function_calls>\n{_DSML}\n</｜DSML｜function_calls>",
        f'<｜DSML｜function_calls>\n{_DSML_OSLO}\n<｜DSML｜invoke name="clock">\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
    ),
    "kimi": Family(
        "<|tool_calls_section_begin|><|tool_call_begin|>",
        _kimi(f"functions.weather:0<|tool_call_argument_begin|>{_ARGUMENTS}"),
        _kimi(
            f"functions.weather:0<|tool_call_argument_begin|>{_OSLO}",
            "functions.clock:1<|tool_call_argument_begin|>{}",
        ),
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
    ),
    "phi4": Family(
        "<|tool_call|>",
        f"<|tool_call|>[{_JSON}]<|/tool_call|>",
        f"<|tool_call|>[{', '.join(_JSON_TWO)}]<|/tool_call|>",
        ("<|tool_call|>", "<|/tool_call|>"),
    ),
    "granite3": Family(
        "<|tool_call|>", f"<|tool_call|>[{_JSON}]", f"<|tool_call|>[{', '.join(_JSON_TWO)}]", ("<|tool_call|>",)
    ),
    "lfm2": Family(
        "<|tool_call_start|>",
        f"<|tool_call_start|>[{_PYTHON}]<|tool_call_end|>",
        '<|tool_call_start|>[weather(city="Oslo"), clock()]<|tool_call_end|>',
        ("<|tool_call_start|>", "<|tool_call_end|>"),
    ),
    "olmo3": Family(
        "<function_calls>",
        f"<function_calls>{_PYTHON}</function_calls>",
        "<function_calls>weather(city='Oslo')\nclock()</function_calls>",
    ),
    "minimax_m2": Family(
        "<minimax:tool_call>",
        f"<minimax:tool_call>\n{_INVOKE}\n</minimax:tool_call>",
        '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n</invoke>\n'
        '<invoke name="clock">\n</invoke>\n</minimax:tool_call>',
    ),
    "minimax_m1": Family(
        "<tool_calls>",
        f"<tool_calls>\n{_JSON}\n</tool_calls>",
        "<tool_calls>\n" + "\n".join(_JSON_TWO) + "\n</tool_calls>",
    ),
    "hunyuan": Family(
        "<tool_calls><tool_call>",
        f"<tool_calls><tool_call>weather\n```json\n{_ARGUMENTS}\n```</tool_call></tool_calls>",
        f"<tool_calls><tool_call>weather\n```json\n{_OSLO}\n```</tool_call>\n"
        "<tool_call>clock\n```json\n{}\n```</tool_call></tool_calls>",
    ),
    "seed": Family(
        "<seed:tool_call>",
        f"<seed:tool_call>\n{_XML}\n</seed:tool_call>",
        f"<seed:tool_call>\n{_XML_OSLO}\n</seed:tool_call><seed:tool_call><function=clock></function></seed:tool_call>",
    ),
    "nemotron": Family(
        "<TOOLCALL>", f"<TOOLCALL>[{_JSON}]</TOOLCALL>", f"<TOOLCALL>[{', '.join(_JSON_TWO)}]</TOOLCALL>"
    ),
    "command": Family(
        "<|START_ACTION|>",
        f'<|START_ACTION|>[\n{{"tool_call_id": "0", "tool_name": "weather", "parameters": {_ARGUMENTS}}}\n]'
        "<|END_ACTION|>",
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Oslo"}}, '
        '{"tool_call_id": "1", "tool_name": "clock", "parameters": {}}]<|END_ACTION|>',
        ("<|START_ACTION|>", "<|END_ACTION|>"),
    ),
    "functiongemma": Family(
        "<start_function_call>",
        "<start_function_call>call:weather{city:<escape>Oslo<escape>,days:2,parts:[<escape>a<escape>,<escape>b<escape>]}"
        "<end_function_call>",
        "<start_function_call>call:weather{city:<escape>Oslo<escape>}<end_function_call>"
        "<start_function_call>call:clock{}<end_function_call>",
        ("<start_function_call>", "<end_function_call>", "<escape>"),
    ),
    "gemma4": Family(
        "<|tool_call>",
        '<|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:2,parts:[<|"|>a<|"|>,<|"|>b<|"|>]}<tool_call|>',
        '<|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|><|tool_call>call:clock{}<tool_call|>',
        ("<|tool_call>", "<tool_call|>", '<|"|>'),
    ),
    "harmony": Family(
        "<|start|><|message|>",
        f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{_ARGUMENTS}<|call|>",
        f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{_OSLO}{_NEXT}<|channel|>commentary "
        "to=functions.clock<|message|>{}<|call|>",
        _HARMONY_TOKENS,
    ),
}
