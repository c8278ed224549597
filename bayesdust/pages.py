"""What every HTML page is made with: templates that escape all text, and figures inside the page."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, context: Mapping[str, Any], **settings: Any) -> str:
    """A template's page; `settings` are those of the Jinja environment beside what makes it safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, **settings
    )
    return environment.get_template(template).render(context)


def data_uri(fig: Any, dpi: int | None) -> str:
    """A matplotlib figure as a data URI: PNG of so many dots an inch, or SVG if that is None."""
    stream = io.BytesIO()
    if dpi is None:
        fig.savefig(stream, format="svg", metadata={"Date": None})
    else:
        fig.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    kind = "svg+xml" if dpi is None else "png"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
