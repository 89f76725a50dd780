"""The oldest packages that pyproject.toml allows, in an environment of their own, and the tests in it.

    python tests/lowest.py [--keep NAME ...] [--tests ARGUMENTS]

Every `NAME>=VERSION` is installed as NAME==VERSION, but those that are kept, which are as in requirements.lock.
Tests of bytes are left out: they hold for the versions of the lock file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("book", "test", "outsiders", "cluster")
LOWER = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def bounds() -> dict[str, str]:
    """The lower bound of every package that this one asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in EXTRAS for r in project["optional-dependencies"][extra])]
    return dict(match.groups() for r in wanted if (match := LOWER.fullmatch(r)))


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", nargs="*", default=[], help="packages to install as in requirements.lock")
    parser.add_argument(
        "--tests", nargs=argparse.REMAINDER, default=["tests"], help="arguments of pytest, the last option"
    )
    given = parser.parse_args()
    folder, lowest = ROOT / ".venv-lowest", bounds()
    lowest |= {name: locked()[name] for name in given.keep}
    venv.create(folder, with_pip=True, clear=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(lowest.items())))
    print(f"{len(lowest)} lower bounds: {', '.join(constraints.read_text().split())}", flush=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", constraints]
    subprocess.run([*pip, *(f"{name}=={version}" for name, version in lowest.items())], check=True)
    subprocess.run([*pip, "-e", f"{ROOT}[{','.join(EXTRAS)}]"], check=True)
    return subprocess.run([python, "-m", "pytest", "-m", "not exact", "-n", "2", *given.tests], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
