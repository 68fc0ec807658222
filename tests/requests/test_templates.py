"""Templates: what a string of the job means, what it may not do, and how it says what is wrong."""

from __future__ import annotations

import copy
import threading
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.requests import metering
from batchgen.requests.faults import TemplateError
from batchgen.requests.templates import Templates

ROW: dict[str, Any] = {
    "name": "Lamp",
    "n": 3,
    "none": None,
    "list": [1, 2],
    "deep": {"k": [1], "items": "a column", "text": "x"},
    "Key facts": "bright",
    "Größe": "XL",
    "long": "y" * 1000,
}


def rendered(source: str, folder: Path = Path("/nonexistent"), **more: Any) -> Any:
    row = {**ROW, **more}
    return Templates(folder, {}).compile(source)({**row, "row": row})


def fault(source: str, folder: Path = Path("/nonexistent"), **more: Any) -> str:
    with pytest.raises(TemplateError) as caught:
        rendered(source, folder, **more)
    return str(caught.value)


# --- what a string means


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("plain", "plain"),
        ("{{ n }}", 3),
        ("  {{- n -}} \n", 3),
        ("{{ n }}{{ n }}", "33"),
        ("{{ n }} pieces", "3 pieces"),
        ("{{ list }}", [1, 2]),
        ("<{{ none }}>", "<>"),
        (
            "{{ list }}, {{ deep }}, {{ n > 2 }}",
            '[1, 2], {"k": [1], "items": "a column", "text": "x"}, true',
        ),
        ("{{ deep }}", ROW["deep"]),
        ("{{ row['none'] }}", None),
        ("{{ '0.4' | float }}", 0.4),
        ("{{ ' 12 ' | int }}", 12),
        ("{{ '' | int(5) }}", 5),
        ("{{ 'x' | float(default=none) }}", None),
        ("{{ n > 2 }}", True),
        ("{{ '}}' ~ '{{' }}", "}}{{"),
        ('{{ row["Key facts"] }}', "bright"),
        ("{{ row.name }}", "Lamp"),
        ("{{ deep.items }}", "a column"),
        ("{# no comment #} {{ n }}", "{# no comment #} 3"),
        ("a { b } #} {", "a { b } #} {"),
        ("{% raw %}{{ n }}{% endraw %}", "{{ n }}"),
        (
            "{% for x in list %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
            "1/2:1 2/2:2 ",
        ),
        ("{% set x = n %}{{ x }}", "3"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(n) }}", "<3>"),
    ],
)
def test_values(source: str, value: Any) -> None:
    """One whole expression keeps its type; any other string gives text, where none is nothing and
    what is no text is JSON; `{# #}` is text.
    """
    result = rendered(source)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ list | map('string') }}", ["1", "2"]),
        ("{{ list | select('odd') }}", [1]),
        ("{{ {'x': list | map('string')} }}", {"x": ["1", "2"]}),
        ("{{ (1, 2) }}", [1, 2]),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ deep.keys() }}", ["k", "items", "text"]),
        ("Facts: {{ list | map('string') }}", 'Facts: ["1", "2"]'),
        ("{{ name | escape }}", "Lamp"),
        ("{{ '<中>' | tojson }}", '"<中>"'),
        ("{{ list | batch(1) }}", [[1], [2]]),
        ("{{ list | slice(2) }}", [[1], [2]]),
        ("{{ list | join(', ') }}", "1, 2"),
        ("{{ [deep] | join(attribute='text') }}", "x"),
    ],
)
def test_only_plain_values_leave_a_template(source: str, value: Any) -> None:
    """Iterators become lists and Markup text: no "<generator object>" is ever paid for, and JSON is
    read as written.
    """
    result = rendered(source)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    "source",
    [
        "{{ name.upper }}",
        "a {{ name.upper }}",
        "{{ range }}",
        "{{ cycler(1) }}",
        "{{ namespace(a=1) }}",
        "x{{ dict }}",
        "{{ n ~ name.upper }}",
    ],
)
def test_functions_are_no_values(source: str) -> None:
    """A method whose brackets were forgotten is an error, not "<built-in method>" in a prompt."""
    assert "not text, a number, a list or an object" in fault(source)


@given(st.text())
def test_row_text_is_never_a_template(text: str) -> None:
    """P41 A cell that looks like a template is text, whole and within text."""
    for cell in (text, "{{ 7 * 7 }}" + text, "{% include 'x' %}", "{{ row }}"):
        assert rendered("{{ name }}", name=cell) == cell
        assert rendered("a {{ name }} b", name=cell) == f"a {cell} b"


def test_renderings_do_not_touch_the_row() -> None:
    """What a template returns is its own: changing it changes no other rendering of the
    same row.
    """
    row = copy.deepcopy(ROW)
    render = Templates(Path("/nonexistent"), {}).compile("{{ deep }}")
    render({**row, "row": row})["k"].append(9)
    assert render({**row, "row": row})["k"] == [1]


@pytest.mark.parametrize(
    "name", ["loop", "range", "result", "dict", "self_", "turn", "context", "environment", "l"]
)
def test_columns_with_words_of_the_language(name: str) -> None:
    """A column may have the name of a function or of a thing of Jinja2's own."""
    cell: dict[str, Any] = {name: "cell"}
    assert rendered(f"{{{{ {name} }}}}", **cell) == "cell"
    assert rendered(f'a {{{{ row["{name}"] }}}}', **cell) == "a cell"


def test_headers_match_in_nfc() -> None:
    """An umlaut that was typed decomposed, as on a Mac, is the same column."""
    assert rendered(unicodedata.normalize("NFD", '{{ row["Größe"] }}')) == "XL"


# --- what is wrong


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ nmae }}", "'nmae' is not a column of this row"),
        ("{{ row.nmae }}", "the object has no 'nmae'"),
        ("{{ [nmae] }}", "'nmae' is not a column"),
        ("{{ {'a': [nmae]} }}", "'nmae' is not a column"),
        ("{{ name.nope }}", "text has no 'nope'"),
        ("{{ name if false }}", "no else section"),
        ("{{ '' | int }}", "'' is not a number (int)"),
        ("{{ '3.7' | int }}", "not a number"),
        ("{{ '1_000' | int }}", "not a number"),
        ("{{ 'nan' | float }}", "not a number"),
        ("{{ '١' | int }}", "not a number"),
        ("{{ none | int }}", "not a number"),
        ("{{ nmae | int }}", "not a column"),
        ("{{ ('9' * 5000) | int }}", "not a number"),
        ("{{ Key facts }}", 'a column with a space is written {{ row["Key facts"] }}'),
        ("{{ name", "template syntax, line 1"),
        ("{% for x in list %}", "template syntax"),
        ("{{ name | nope }}", "no filter is called 'nope'"),
        ("{% if false %}{{ name | uper }}{% endif %}", "'uper'; did you mean 'upper'?"),
        ("{{ name is numbr }}", "no test is called 'numbr'; did you mean 'number'?"),
        ("{{ name.spltlines()[0] }}", "'spltlines'; did you mean 'splitlines'?"),
        ("{{ name | _output }}", "no filter is called '_output'"),
        ("{{ 1 + name }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% for x in list recursive %}{{ loop([1]) }}{% endfor %}", "recursive"),
    ],
)
def test_faults(source: str, words: str) -> None:
    """Every fault is one sentence for the reader, raised as a TemplateError."""
    assert words in fault(source)


# --- the fence


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ row.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ namespace.__class__ }}",
        "{{ self.__init__ }}",
        "{{ self._TemplateReference__context }}",
        '{{ "{0.__class__}".format(name) }}',
        '{{ "{0.__class__}".format_map({"0": name}) }}',
        "{{ lipsum.__globals__ }}",
        "{{ range.__self__ }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ list | map(attribute='__class__') }}",
        "{{ list.append(1) }}",
        "{{ row.update({'a': 1}) }}",
        "{{ row.clear() }}",
        "{% set row.name = 1 %}",
        "{{ name.encode() }}",
        "{{ n.to_bytes(99999999, 'big') }}",
        "{% macro m() %}{% endmacro %}{{ m.__init__ }}",
        "{% for x in list %}{{ loop.__class__ }}{% endfor %}",
        "{{ config }}",
        "{{ list | random }}",
    ],
)
def test_templates_cannot_reach_python(source: str) -> None:
    """P41 No template reaches Python's objects, changes the row, or gives another result
    each time.
    """
    fault(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 40000000 }}",
        "{{ [0] * 30000000 }}",
        "{{ [[0] * 1000000] * 10000000 }}",
        "{{ ('a' * 30000000) ~ ('a' * 30000000) }}",
        "{% for x in range(30) %}{{ 'a' * 3000000 }}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x "
        "%}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x "
        "%}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] "
        "%}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = {1: ns.x, 2: "
        "ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% "
        "endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 9 | round(-99999999) }}",
        "{{ 9.5 | round(99999999, 'ceil') }}",
        "{{ '%99999999d' % 1 }}",
        "{{ '%*d' % (99999999, 1) }}",
        "{{ '%*d' | format(99999999, 1) }}",
        "{{ '%s%s%s%s' | format('a' * 9000000, 1, 1, 1) }}",
        "{{ '{:99999999}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=99999999) }}",
        "{{ ('{0}' * 100000).format('a' * 10000000) }}",
        "{{ name | center(99999999) }}",
        "{{ name.center(99999999) }}",
        "{{ name.zfill(99999999) }}",
        "{{ name | indent(99999999) }}",
        "{{ ('a\n' * 1000000) | indent(9999) }}",
        "{{ ('\t' * 1000000).expandtabs(9999) }}",
        "{{ list | batch(99999999, 0) }}",
        "{{ list | slice(99999999) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000) }}",
        "{{ ('a' * 1000000) | replace('', 'b' * 1000) }}",
        "{{ ('a' * 1000000).join(['b'] * 1000) }}",
        "{{ (['b'] * 1000) | join('a' * 1000000) }}",
        "{{ range(999999999) }}",
        "{{ range(99999) | map('string') | map('center', 9999) | list }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) if false %}{% endfor %}{% for i in range(99999) if false "
        "%}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ "
        "f(40) }}",
        "{% for i in range(99999) %}" + "literal text " * 40 + "{% endfor %}",
    ],
)
def test_templates_are_bounded(source: str) -> None:
    """P41 What would make gigabytes or run for hours ends as a fault, within moments."""
    fault(source)


def test_the_clock_ends_what_only_burns_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """P41 Few steps that each take long are ended by the processor's clock."""
    monkeypatch.setattr(metering, "MAX_SECONDS", 0.1)
    source = "{% for i in range(90000) %}{% if range(99999) | sum == 1 %}{% endif %}{% endfor %}"
    assert "seconds" in fault(source)
    for source in (
        "{{ range(90000) | select('in', ['a'] * 90000) | list }}",
        "{{ range(90000) | select('in', ['a'] * 90000) | first }}",
    ):
        assert "seconds" in fault(source)


def test_each_rendering_counts_anew() -> None:
    """The bounds are one rendering's: a thousand rows may each make what one may."""
    render = Templates(Path("/nonexistent"), {}).compile(
        "{% for i in range(30000) %}{{ i }}{% endfor %}"
    )
    assert len({render({}) for _ in range(5)}) == 1


def test_threads_count_for_themselves() -> None:
    """P13 P41 Turns are rendered in threads at one time: what one rendering takes is not counted
    against another.
    """
    both, made = threading.Barrier(2, timeout=10), []

    def meet(value: Any) -> Any:
        both.wait()
        return value

    source = "{{ 1 | meet }}{% for i in range(60000) %}{% endfor %}{{ 2 | meet }}"
    render = Templates(Path("/nonexistent"), {"meet": meet}).compile(source)
    threads = [threading.Thread(target=lambda: made.append(render({}))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["12", "12"]


def test_large_cells_pass() -> None:
    """P28 A cell of many megabytes goes through a template and its usual filters unchanged."""
    cell = "中 text\r\n" * 400_000
    assert rendered("Text: {{ name }}", name=cell) == "Text: " + cell
    assert rendered("{{ name | trim | replace('x', 'y') }}", name=cell) == cell.strip().replace(
        "x", "y"
    )


# --- includes


def test_include_reads_below_the_folder_only(tmp_path: Path) -> None:
    """P41 `include`, `import` and `extends` read text files below the job's folder, and nothing
    else.
    """
    folder = tmp_path / "jobs"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.md").write_text("what nobody may see", encoding="utf-8")
    (folder / "tone.md").write_text("calm {{ name }}", encoding="utf-8")
    (folder / "sub" / "m.md").write_text(
        "{% macro m(a) %}<{{ a }}>{% endmacro %}", encoding="utf-8"
    )
    (folder / "bytes.md").write_bytes(b"\xff\xfe")
    (folder / "large.md").write_bytes(b"a" * (1024 * 1024 + 1))
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "wrong.md").write_text("{{ name", encoding="utf-8")
    assert rendered('Be {% include "tone.md" %}.', folder) == "Be calm Lamp."
    assert rendered('{% import "sub/m.md" as x %}{{ x.m(n) }}', folder) == "<3>"
    for name in (
        "../secret.md",
        str(tmp_path / "secret.md"),
        "link.md",
        "/dev/zero",
        ".",
        "nope.md",
        "bytes.md",
        "large.md",
    ):
        for tag in ("include", "extends"):
            assert repr(name) in fault(f'{{% {tag} "{name}" %}}', folder)
    assert "an included template is wrong" in fault('{% include "wrong.md" %}', folder)


@pytest.mark.parametrize(
    "source",
    [
        "{% include name %}",
        "{% include 'tone-' ~ name %}",
        "{% include ['tone.md', name] %}",
        "{% include ('tone.md', name) %}",
        "{% include 'tone.md' if n else name %}",
        "{% extends name %}",
        "{% import name as m %}",
        "{% from name import m %}",
        "{% if false %}{% include row['name'] %}{% endif %}",
        "{% include 7 %}",
    ],
)
def test_rows_name_no_files(tmp_path: Path, source: str) -> None:
    """P41 A file that is read as a template is named by the job and never by a row: known before
    any row is rendered.
    """
    (tmp_path / "tone.md").write_text("calm", encoding="utf-8")
    with pytest.raises(TemplateError, match="text in quotes"):
        Templates(tmp_path, {}).compile(source)
    (tmp_path / "outer.md").write_text(source, encoding="utf-8")
    assert "text in quotes" in fault('{% include "outer.md" %}', tmp_path, name="tone.md")


def test_hidden_files_are_no_templates(tmp_path: Path) -> None:
    """P41 No file is read as a template whose path has a part that begins with a dot: .env is not
    told to a model.
    """
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-canary", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("secret", encoding="utf-8")
    (tmp_path / "link.md").symlink_to(".env")
    (tmp_path / ".shown.md").symlink_to("tone.md")
    (tmp_path / "tone.md").write_text("calm", encoding="utf-8")
    for name in (".env", "./.env", ".git/config", "link.md", ".shown.md"):
        assert f"{name!r} is hidden" in fault(f'{{% include "{name}" %}}', tmp_path)
    assert rendered('{% include "./tone.md" %}', tmp_path) == "calm"


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """P08 What is rendered of a file is what was looked through and told: a change in the middle of
    a run is not half seen.
    """
    (tmp_path / "tone.md").write_text("calm", encoding="utf-8")
    templates = Templates(tmp_path, {})
    source = 'Be {% include "tone.md" %}.'
    assert templates.included(source) == {"tone.md": "calm"}
    (tmp_path / "tone.md").write_text("loud", encoding="utf-8")
    assert templates.compile(source)({}) == "Be calm."


def test_includes_are_bounded(tmp_path: Path) -> None:
    """P41 Templates that include themselves, or each other twice at thirty levels, end as a
    fault.
    """
    (tmp_path / "self.md").write_text('{% include "self.md" %}', encoding="utf-8")
    for n in range(30):
        (tmp_path / f"{n}.md").write_text(f'{{% include "{n + 1}.md" %}}' * 2, encoding="utf-8")
    (tmp_path / "30.md").write_text("", encoding="utf-8")
    fault('{% include "self.md" %}', tmp_path)
    fault('{% include "0.md" %}', tmp_path)
    templates = Templates(tmp_path, {})
    assert templates.names('{% include "0.md" %}{% include "self.md" %}') == (set(), set())


# --- the columns a template speaks of


@pytest.mark.parametrize(
    ("source", "bare", "keys"),
    [
        (
            "{{ a }} {{ row['b c'] }} {{ row.d }}",
            {"a", "row"},
            {("row", "b c"), ("row", "d")},
        ),
        ("{{ output.x }} {{ output.upper() }}", {"output"}, {("output", "x")}),
        ("{% for x in a %}{{ x }}{% endfor %}", {"a"}, set()),
        ("{{ row.items() }}", {"row"}, set()),
        ("{% for row in table %}{{ row.b }}{% endfor %}", {"table"}, set()),
        ("{% set a = b %}{{ a }}", {"b"}, set()),
        ("{{ row[a] }}", {"row", "a"}, set()),
        ("{{ range(3) }}", set(), set()),
        ("text", set(), set()),
    ],
)
def test_names(source: str, bare: set[str], keys: set[tuple[str, str]]) -> None:
    """The columns of a template are known before any row is: also in includes, and not what a loop
    names itself.
    """
    assert Templates(Path("/nonexistent"), {}).names(source) == (bare, keys)


@pytest.mark.parametrize(
    "source",
    [
        "{{ name.encode().hex() }}",
        "{{ n.to_bytes(9, 'big').hex() }}",
        "{{ name.translate({76: 'l' * 9}) }}",
        "{{ n.bit_length() }}",
        "{{ 0.5.hex() }}",
    ],
)
def test_only_the_methods_that_are_named_are_offered(source: str) -> None:
    """P41 A method that the fence does not name is refused, though its result be text or a
    number.
    """
    fault(source)


def test_what_a_template_makes_and_throws_away_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """P41 One large value is refused where it is made, and so are many small ones, though neither
    is in the result.
    """
    one, many = (
        "{% set x = long ~ long %}ok",
        "{% for i in range(9) %}{% set x = long ~ name %}{% endfor %}ok",
    )
    assert [rendered(one), rendered(many)] == ["ok", "ok"]
    monkeypatch.setattr(metering, "MAX_TEXT", 1500)
    assert "makes more than" in fault(one)
    assert rendered(many) == "ok"
    monkeypatch.setattr(metering, "MAX_MADE", 5000)
    assert "makes more than" in fault(many)


@pytest.mark.parametrize(
    "source", ["{{ 'a' * 40000000 }}", "{{ 40000000 * 'a' }}", "{{ [0] * 5000000 }}"]
)
def test_a_product_is_weighed_before_it_is_made(source: str) -> None:
    """P41 What would be too large is refused without the memory for it."""
    tracemalloc.start()
    try:
        fault(source)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5
    )
)
def test_a_column_alone_is_what_a_template_makes_of_it(value: Any) -> None:
    """P28 A string that is one column gives the same as any longer way to it, whatever stands in
    the column.
    """
    compiled = Templates(Path("/nonexistent"), {}).compile
    values = {"range": value, "row": {"range": value}}
    alone, around = (compiled(source)(values) for source in ("{{ range }}", '{{ row["range"] }}'))
    assert repr(alone) == repr(around)


@pytest.mark.parametrize("source", ["{{ true }}", "{{ None }}", "{{ 7 }}"])
def test_a_constant_is_no_column(source: str) -> None:
    """A word that means a value in a template means it also beside a column of that name."""
    assert Templates(Path("/nonexistent"), {}).compile(source)(
        {"true": "x", "None": "x", "7": "x"}
    ) in (True, None, 7)


def test_a_column_that_a_row_lacks_is_told() -> None:
    """P30 A string that is one column says so where a row has none of that name."""
    with pytest.raises(TemplateError, match="'lacking' is not a column of this row"):
        Templates(Path("/nonexistent"), {}).compile("{{ lacking }}")({"row": {}})
