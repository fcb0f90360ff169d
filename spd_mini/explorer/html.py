"""An explorer as one self-contained piece of HTML: style, data and module, nothing fetched."""

import hashlib
import html
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from .export import Payload


@cache
def source(name: str) -> str:
    """Text of one of the package's own .js or .css files."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def needed(name: str) -> list[str]:
    """A file and those that it imports, directly or not, every one before those that import it."""
    imported = re.findall(r'^import .* from "\./(.+)";$', source(name), flags=re.MULTILINE)
    return list(dict.fromkeys([one for other in imported for one in needed(other)] + [name]))


def module(view: str) -> str:
    """The script of one view: its file and those that it needs, joined into one module.

    The files are ordinary ES modules. Joined, they share one scope: `import` lines fall away, the
    word `export` too, and `M.name` (model.js as a namespace) becomes plain `name`.
    """
    parts = []
    for name in needed(f"view_{view}.js"):
        text = re.sub(r"^import .*\n", "", source(name), flags=re.MULTILINE)
        text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"\bM\.(?=[a-z])", "", text))
    return "\n".join(parts)


def lean(script: str) -> str:
    """Without whole-line comments and indentation: a quarter of what a page would carry."""
    return re.sub(r"^[ \t]*//.*\n|^[ \t]+|^\n", "", script, flags=re.MULTILINE)


class Explorer:
    """Shown by any notebook front end; the page recomputes everything, with no kernel behind it.

    payload: JSON-able data of the view. description: the opening state in words, for screen readers
    and where no HTML is shown.
    """

    def __init__(self, view: str, payload: Payload, title: str, description: str) -> None:
        self.view, self.payload, self.title, self.description = view, payload, title, description

    def __repr__(self) -> str:
        return f"{self.title}. {self.description}"

    def _repr_html_(self) -> str:
        # "<" is escaped so that no text in the data can end the script element.
        data = json.dumps(self.payload, separators=(",", ":"), allow_nan=False).replace(
            "<", "\\u003c"
        )
        name = hashlib.sha256(f"{self.view}{self.title}{data}".encode()).hexdigest()[:12]
        title, description = html.escape(self.title), html.escape(self.description)
        return (
            f'<div class="spd-explorer mathjax_ignore tex2jax_ignore" data-view="{self.view}" '
            f'data-spd="{name}" role="group" aria-label="{title}" aria-description="{description}">\n'
            f"<style>{source('explorer.css')}</style>\n"
            f'<p class="spd-title">{title}</p>\n'
            f"<noscript><p>{description} Moving the sliders needs JavaScript.</p></noscript>\n"
            f'<script type="application/json">{data}</script>\n</div>\n'
            f'<script type="module">\n{lean(module(self.view))}\nstart("{name}", view);\n</script>'
        )

    def save(self, path: str | Path) -> None:
        """Write a page of its own that works from a file, without a server."""
        page = (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self.title)}</title>\n"
            "<style>:root { color-scheme: light dark } body { margin: 1rem auto; padding: 0 1rem; "
            "max-width: 80rem; font-family: system-ui, sans-serif }</style>\n"
        )
        Path(path).write_text(
            f"{page}<body>\n{self._repr_html_()}\n</body>\n</html>\n", encoding="utf-8"
        )
