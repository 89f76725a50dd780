"""Every notebook executed again and compared with its stored outputs (nbval), where the book executes its chapters.

Pictures too, and on an old processor: what a stored output shows is what the published results give.
"""

import os
import platform
import sys
from pathlib import Path

import pytest

from vicarious.paper.book import surroundings

TESTS = Path(__file__).resolve().parent
OPTIONS = ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope", "--nbval", "--nbval-current-env"]
OLDEST = {  # what linear algebra, numpy and torch do on a processor of 2008
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
    "ATEN_CPU_CAPABILITY": "default",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A plugin of every worker: pictures are compared, byte by byte."""
    for item in items:
        item.parent.skip_compare = tuple(kind for kind in item.parent.skip_compare if not kind.startswith("image/"))


if __name__ == "__main__":
    os.environ |= OLDEST if platform.machine() == "x86_64" else {}
    where = ["--rootdir", str(TESTS.parent), "--nbval-sanitize-with", str(TESTS / "nbval.cfg"), "-p", "notebooks"]
    chapters = [str(path) for path in sorted((TESTS.parent / "book").glob("*.ipynb"))]
    sys.path.append(str(TESTS))
    with surroundings():
        os.environ["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
        sys.exit(pytest.main([*OPTIONS, *where, *sys.argv[1:], *chapters]))
