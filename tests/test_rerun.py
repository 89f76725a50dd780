"""Claims about executing the paper again."""

from pathlib import Path

from vicarious.paper import book, chapters

ROOT = Path(__file__).resolve().parents[1]


def test_executing_the_book_again_changes_no_byte(tmp_path):
    """Pictures too: what a stored output shows is what the published results give.  The files that differ are named."""
    book.render(tmp_path / "out", workers=2, say=lambda _: None)
    again = tmp_path / "out" / "source" / "book"
    names = [f"{name}.ipynb" for name in chapters.CHAPTERS]
    changed = [name for name in names if (again / name).read_bytes() != (ROOT / "book" / name).read_bytes()]
    assert not changed, f"stored outputs are not what the published results give: {', '.join(changed)}"
