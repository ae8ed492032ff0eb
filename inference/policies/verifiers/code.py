"""Code in an answer."""

from __future__ import annotations

import ast
import re
import warnings

LONGEST = 100_000  # characters
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)


def code_of(text: str) -> str:
    """The first fenced block, else the whole text."""
    fenced = _FENCE.search(text)
    return fenced[1] if fenced else text


def compiles(code: str) -> str:
    """Why Python does not compile it, or nothing. Nothing of it is run."""
    if len(code) > LONGEST:
        return f"the code has more than {LONGEST:,} characters"
    if not code.strip():
        return "there is no code"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of an escape that Python does not know
            compile(ast.parse(code), "<answer>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"the code does not compile: {error.msg}" + (f" in line {error.lineno}" if error.lineno else "")
    except (ValueError, RecursionError, MemoryError) as error:
        return f"the code does not compile: {str(error) or 'it is nested too deeply'}"
    return ""
