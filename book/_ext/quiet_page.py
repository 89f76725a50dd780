"""Drop the scripts of sphinx-thebe, which this book does not use: they declare one constant twice."""


def _is_thebe(script) -> bool:
    return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}".lower()


def _without_thebe(app, page, template, context, doctree):
    context["script_files"] = [script for script in context.get("script_files", []) if not _is_thebe(script)]


def setup(app):
    app.connect("html-page-context", _without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
