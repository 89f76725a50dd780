"""Two parts, one small library and one paper: how large they may grow, and who may import whom."""

import re
import statistics
from pathlib import Path

import nbformat
import pytest
import size

from vicarious.paper import chapters

BOOK = Path(__file__).parent.parent / "book"
BLOCK = re.compile(r"\{glue\} (?:[\w.-]+::)?(\w+)")  # a table or a drawing, which stands by itself


def test_library_and_paper_stay_small():
    total, functions = size.sizes()
    assert {k: n for k, n in total.items() if n > size.MOST[k]} == {}
    assert statistics.median(functions) <= size.MOST["median"]
    assert max(functions) <= size.MOST["longest"]


def test_no_test_is_skipped_for_want_of_what_is_here():
    """A module that was renamed must fail its tests, not skip them."""
    skips = re.compile(r"importorskip\(\s*[\"'](\w+)")
    named = {name for path in Path(__file__).parent.glob("*.py") for name in skips.findall(path.read_text())}
    assert named <= {"gymnasium", "pettingzoo", "distributed", "playwright"}


def test_library_never_imports_the_paper_and_no_import_is_hidden():
    top, hidden = size.imports(inside=False), size.imports(inside=True)
    library = [name for name in top if not name.startswith(size.PAPER)]
    upward = {(name, other) for name in library for other in top[name] if other.startswith(size.PAPER)}
    assert upward == set()
    inside = {(name, other) for name, others in hidden.items() for other in others if name != size.DOOR}
    assert inside == size.LAZY


def test_no_import_circle_even_through_imports_inside_functions():
    top, hidden = size.imports(inside=False), size.imports(inside=True)
    whole = {name: top[name] | hidden[name] for name in top}
    assert size.circle(whole) == []


def test_a_circle_would_be_found():
    assert size.circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_lines_of_code_leave_out_docstrings_blanks_and_comments():
    text = '"""Says."""\n\n# a comment\n\ndef f():\n    """Twice."""\n    return 1  # one\n'
    assert size.lines(size.ast.parse(text), text.splitlines()) == 2


@pytest.mark.parametrize("page", sorted(BOOK.glob("*.ipynb")), ids=lambda path: path.stem)
def test_chapter_declares_its_parameters_once_and_glues_only_what_a_page_shows(page):
    cells = nbformat.read(page, as_version=4).cells
    declared = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    model = chapters.CHAPTERS[page.stem]
    assert declared == ([chapters.declaration(model)] if model.model_fields else declared[:1])
    shown = chapters.numbers_shown(BOOK).get(page.name, set())
    shown |= {name for path in [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")] for name in BLOCK.findall(path.read_text())}
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    glued = {output.get("metadata", {}).get("scrapbook", {}).get("name", "") for output in outputs}
    assert {name for name in glued if name and not name.startswith("caption-")} - shown == set()
