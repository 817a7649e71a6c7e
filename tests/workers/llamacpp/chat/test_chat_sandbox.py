from __future__ import annotations

from typing import Any

import pytest

from lumen.workers.llamacpp.chat.sandbox import Sandbox, TemplateError

DOUBLING = "{% set ns = namespace(x='xx') %}{% for i in range(60) %}…{% endfor %}"
NESTING = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
VARIABLES: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "tools": None, "s": "<a&é>\u2028"}


def render(source: str, **more: Any) -> str:
    return Sandbox(source).render({**VARIABLES, **more})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}\n  {% if m.role %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n", "hi\n"),
        ("{{ s|tojson }}", '"<a&é>\u2028"'),
        ("{{ {'b': 1, 'a': [true, none]}|tojson }}", '{"b": 1, "a": [true, null]}'),
        ("{{ {'a': 1}|tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"),
        ("{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"),
        ("{% for x in [1, 2] %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}", "1/2,2/2"),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% endfor %}", "a1"),
        ("{% for k, v in {'a': 1}|items %}{{ k ~ v ~ nothing }}{% endfor %}", "a1"),
        ("{% for x in nothing %}{% else %}none{% endfor %}", "none"),
        ("{% set ns = namespace(a='') %}{% for x in 'abc' %}{% set ns.a = x + ns.a %}{% endfor %}{{ ns.a }}", "cba"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a') + m('b') }}", "<a><b>"),
        ("{{ 'a-b'.split('-')|join('+') }}{{ 'x  '.rstrip() }}{{ 'abc'[1:] }}{{ 'abc'[::-1] }}", "a+bxbccba"),
        ("{{ 'a'.replace('a', 'b')|upper|replace('B', 'c')|indent(2, true) }}", "  c"),
        (
            "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
            "1",
        ),
        ("{{ messages|map(attribute='content')|join(', ') }}{{ messages|join('', attribute='role') }}", "hiuser"),
        (
            "{{ (1, 2)|last }}{{ [3, 1]|sort|first }}{{ {'b': 1}|dictsort }}{{ 5 // 2 }}{{ 5 % 3 }}{{ 2 ** 3 }}",
            "21[('b', 1)]228",
        ),
        ("{% generation %}x{% endgeneration %}{{ '%s-%d'|format('a', 1) }}{{ '%s' % 'b' }}", "xa-1b"),
        ("{% for i in range(3) recursive %}{{ i }}{% endfor %}{{ range(2)|list }}", "012[0, 1]"),
        ("{{ messages[0].get('nope', 'd') }}{{ messages[0].nope is defined }}{{ 'x' is string }}", "dFalseTrue"),
        ("{% set x %}in{% endset %}{{ x|string|trim|title }}", "In"),
        ("{% filter upper %}a{% endfilter %}", "A"),
        ("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}", "[x]"),
    ],
)
def test_what_templates_use_works(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ('{0.__class__}').format(1) }}",
        "{{ '{0.__class__}'.format_map({}) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ messages[0]['__class__'].x }}",
        "{{ messages|attr('__class__') }}",
        "{{ self.__init__.__globals__.x }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ (messages|map(attribute='__class__')|first).x }}",
        "{% include '/etc/passwd' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ messages|pprint|urlize }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set g = (x for x in y) %}",
    ],
)
def test_no_way_out(source: str) -> None:
    try:
        text = render(source)
    except TemplateError as error:
        assert "0x" not in str(error)
        return
    assert text.strip() == "", f"{source} gave {text!r}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
        "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 'x'|indent(10 ** 9) }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 10 ** 99999 }}",
        "{{ range(10 ** 12)|list }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        DOUBLING.replace("…", "{% set ns.x = ns.x + ns.x %}"),
        DOUBLING.replace("…", "{% set ns.x = ns.x ~ ns.x %}"),
        DOUBLING.replace("…", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        DOUBLING.replace("…", "{% set ns.x = ns.x.replace('x', 'xx') %}"),
        DOUBLING.replace("…", "{% set ns.x = ns.x.join([ns.x, ns.x, ns.x]) %}"),
        DOUBLING.replace("…", "{% set ns.x = [ns.x, ns.x]|join %}"),
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        NESTING + "{{ ns.x }}",
        NESTING + "{{ ns.x|tojson }}",
        "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ 'x'.center(999999999) }}",
        "{{ '1'.zfill(999999999) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}" + "y" * 5000 + "{% endfor %}{% endfor %}",
    ],
)
def test_work_without_end_is_stopped(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source)


def test_a_long_conversation_is_no_abuse() -> None:
    source = "{% for m in messages %}{{ '<' + m.role + '>' + m.content|trim + '\n' }}{% endfor %}"
    messages = [{"role": "user", "content": "word " * 2000}] * 500
    sandbox = Sandbox(source)
    assert len(sandbox.render({"messages": messages}, 64 * 5_000_000)) > 4_900_000


def test_errors_say_what_failed() -> None:
    with pytest.raises(TemplateError, match="refuses this conversation: no way"):
        render("{{ raise_exception('no way') }}")
    with pytest.raises(TemplateError, match="failed"):
        render("{{ nothing.x.y }}")
    with pytest.raises(TemplateError, match="failed"):
        render("{{ 1 + 'x' }}")
    with pytest.raises(TemplateError, match=r"does not compile.*line 2"):
        Sandbox("\n{% if %}")


def test_renderings_do_not_share_a_budget() -> None:
    sandbox = Sandbox("{% for i in range(90000) %}{% endfor %}")
    for _ in range(10):
        assert sandbox.render({}) == ""
