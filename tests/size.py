"""How large the package is, how long its functions are, and who imports whom: `python tests/size.py` prints it."""

import ast
import statistics
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "vicarious"
PAPER = "vicarious.paper"
DOOR = "vicarious.cli"  # to both parts: imports what a command needs, when it does
LAZY = {
    ("vicarious.pipeline", "vicarious.interop.sb3")
}  # needs packages of an extra, and nothing of it needs the pipeline
MOST = {"library": 4000, "paper": 2900, "files": 40, "longest": 60, "median": 8}


def lines(node: ast.AST, text: list[str]) -> int:
    """Lines of code of a module, class or function: no docstrings, blank lines or comments."""
    left_out: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(part, clean=False):
            left_out |= set(range(part.body[0].lineno, part.body[0].end_lineno + 1))
    own = range(getattr(node, "lineno", 1), getattr(node, "end_lineno", len(text)) + 1)
    code = (text[i - 1].strip() for i in own if i not in left_out)
    return sum(bool(line) and not line.startswith("#") for line in code)


def modules() -> dict[str, tuple[Path, ast.Module]]:
    """Name of every module -> its file, and its syntax tree."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path, ast.parse(path.read_text())
    return found


def sizes() -> tuple[dict[str, int], list[int]]:
    """Lines of code of both parts and their number of files, and lines of every function."""
    total, functions = {"library": 0, "paper": 0, "files": 0}, []
    for name, (path, tree) in modules().items():
        text = path.read_text().splitlines()
        total["paper" if name.startswith(PAPER) else "library"] += lines(tree, text)
        total["files"] += 1
        functions += [lines(part, text) for part in ast.walk(tree) if isinstance(part, ast.FunctionDef)]
    return total, functions


def imports(inside: bool) -> dict[str, set[str]]:
    """Module -> the package's modules that it imports at its top, or (inside) only inside a function."""
    known, graph = modules(), {}
    for name, (path, tree) in known.items():
        base = name if path.stem == "__init__" else name.rpartition(".")[0]
        within = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        graph[name] = set()
        for node in ast.walk(tree):
            if (node in within) != inside or not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                parts = base.split(".")[: len(base.split(".")) - node.level + 1] if node.level else []
                start = ".".join([*parts, *([node.module] if node.module else [])])
                named = [f"{start}.{alias.name}" for alias in node.names]
                targets = [n if n in known else start for n in named]
            graph[name] |= {target for target in targets if target in known and target != name}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, in its order; none if there is no circle."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph[name]):
                if found := walk(other, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in graph if (found := walk(name, []))), [])


def main() -> None:
    total, functions = sizes()
    for part in ("library", "paper"):
        print(f"{part:8} {total[part]:5,} lines of code (at most {MOST[part]:,})")
    print(f"{'files':8} {total['files']:5} (at most {MOST['files']})")
    print(f"{len(functions):,} functions: median {statistics.median(functions):g} lines, longest {max(functions)}")
    tables = {path.name: len(path.read_text().splitlines()) for path in sorted(SOURCE.rglob("*.yml"))}
    print("tables: " + ", ".join(f"{name} {count} lines" for name, count in tables.items()))
    for name, others in imports(inside=False).items():
        print(f"{name} <- {', '.join(sorted(o.removeprefix('vicarious.') for o in others)) or '(nothing)'}")


if __name__ == "__main__":
    main()
