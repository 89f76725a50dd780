"""Drop the scripts of sphinx-thebe, which this book does not use: they declare one variable twice."""


def _without_thebe(app, page, template, context, doctree):
    for key in ("script_files", "css_files"):
        if key in context:
            context[key] = [f for f in context[key] if "thebe" not in str(getattr(f, "filename", f) or "")]
    if context.get("body"):
        context["body"] = context["body"].replace('<script>var togglebuttonSelector', '<script>var togglebuttonSelector')


def setup(app):
    app.connect("html-page-context", _without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
