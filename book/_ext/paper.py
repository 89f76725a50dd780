"""What this book's pages have beyond their theme's, and what they do without."""

from docutils import nodes
from myst_nb.ext.glue.crossref import read_glue_cache


def _is_thebe(script) -> bool:
    return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}".lower()


def _without_thebe(app, page, template, context, doctree):
    """Drop the scripts of sphinx-thebe, which this book does not use: they declare one constant twice."""
    context["script_files"] = [script for script in context.get("script_files", []) if not _is_thebe(script)]


def _with_exhibits(app, doctree, page):
    """Under every figure what `vicarious.exhibits` glued to it: where its numbers come from, and the numbers."""
    glued = read_glue_cache(app.env.mystnb_config.output_folder, page)
    for figure in list(doctree.findall(nodes.figure)):
        for name in figure["names"]:
            if f"exhibit-{name}" in glued:
                html = "".join(glued[f"exhibit-{name}"]["data"]["text/html"])
                figure.parent.insert(figure.parent.index(figure) + 1, nodes.raw("", html, format="html"))


def setup(app):
    app.connect("html-page-context", _without_thebe, priority=900)
    app.connect("doctree-resolved", _with_exhibits)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
