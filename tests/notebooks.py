"""Every notebook executed again and compared with its stored outputs (nbval), where the book executes its chapters."""

import sys
from pathlib import Path

import pytest

from vicarious.paper.book import surroundings

TESTS = Path(__file__).resolve().parent
OPTIONS = ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope", "--nbval", "--nbval-current-env"]

if __name__ == "__main__":
    where = ["--rootdir", str(TESTS.parent), "--nbval-sanitize-with", str(TESTS / "nbval.cfg")]
    chapters = [str(path) for path in sorted((TESTS.parent / "book").glob("*.ipynb"))]
    with surroundings():
        sys.exit(pytest.main([*OPTIONS, *where, *sys.argv[1:], *chapters]))
