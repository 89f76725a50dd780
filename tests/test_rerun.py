"""Claims about executing the paper again."""

import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vicarious.paper import book, chapters

ROOT = Path(__file__).resolve().parents[1]
OLDEST = {  # what linear algebra, numpy and torch do on a processor of 2008
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
    "ATEN_CPU_CAPABILITY": "default",
}


@pytest.mark.exact
def test_executing_the_book_again_changes_no_byte(tmp_path, monkeypatch):
    """Pictures too, and on an old processor: what a stored output shows is what the published results give.

    The files that differ are named.
    """
    if platform.machine() == "x86_64":
        for name, value in OLDEST.items():
            monkeypatch.setenv(name, value)
    again = [tmp_path / f"{name}.ipynb" for name in chapters.CHAPTERS]
    for path in again:
        shutil.copy(ROOT / "book" / path.name, path)
    with book.surroundings(), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: book.execute(path, {}), again))
    changed = [path.name for path in again if path.read_bytes() != (ROOT / "book" / path.name).read_bytes()]
    assert not changed, f"stored outputs are not what the published results give: {', '.join(changed)}"
