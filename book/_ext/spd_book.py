"""What the site needs beyond its theme: MathJax from the site itself, and no Thebe."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx_thebe import init_thebe_core, update_thebe_context

# Of MathJax: TeX in, HTML out, its fonts, and what its menu and rarer TeX macros load later.
MATHJAX_PARTS = (
    "tex-chtml.js",
    "output/chtml/fonts",
    "input/tex/extensions",
    "a11y",
    "ui",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)


def mathjax_folder() -> Path:
    """Where the pinned package sphinx-mathjax-offline keeps MathJax."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ExtensionError("MathJax is missing: pip install -r requirements.txt")
    return Path(spec.origin).parent / "static" / "mathjax"


def configure(app: Sphinx, config: Config) -> None:
    """No page may ask another host for anything.

    Thebe comes with jupyter-book and cannot be left out of its configuration. The book does not
    use it, and its inline script, which the theme repeats, is an error in every page's console.
    """
    mathjax_folder()  # fails here, before the pages are written
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.nb_ipywidgets_js = {}  # kernel widgets are not rendered in a static page
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            if listener.handler in (init_thebe_core, update_thebe_context):
                app.disconnect(listener.id)


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Puts MathJax's files, and only those used, beside the site's other static files."""
    if exception is not None or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX_PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, target / part)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", configure)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
