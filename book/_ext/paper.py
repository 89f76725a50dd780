"""What this book's pages have beyond their theme's, and what they do without."""

from docutils import nodes
from myst_nb.ext.glue.crossref import read_glue_cache


def _is(script, name: str) -> bool:
    return name in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}".lower()


def _without_needless_scripts(app, page, template, context, doctree):
    """Drop the scripts of sphinx-thebe, which this book does not use and which declare one constant twice, and two
    megabytes of MathJax from pages without mathematics."""
    formulas = doctree is not None and any(
        True for kind in (nodes.math, nodes.math_block) for _ in doctree.findall(kind)
    )
    needless = ["thebe"] if formulas else ["thebe", "mathjax"]
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if not any(_is(s, name) for name in needless)]


def _with_captions(app, doctree, page):
    """Under every figure what `vicarious.paper.site` glued to it: where its numbers come from, and the numbers."""
    glued = read_glue_cache(app.env.mystnb_config.output_folder, page)
    for figure in list(doctree.findall(nodes.figure)):
        for name in figure["names"]:
            if f"caption-{name}" in glued:
                html = "".join(glued[f"caption-{name}"]["data"]["text/html"])
                figure.parent.insert(figure.parent.index(figure) + 1, nodes.raw("", html, format="html"))


def setup(app):
    app.connect("html-page-context", _without_needless_scripts, priority=900)
    app.connect("doctree-resolved", _with_captions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
