"""A figure as SVG that stands in a page: its colours are the page's, so that they follow its light or dark ground."""

import html
import io
import re

from fastres.track.pictures import BORDER, COLOURS, PAPER, literal

INK, GRID, GROUND = "#000000", "#e4e4e4", "#ffffff"  # as figures are drawn; the page says what stands for them
NAMES = {
    INK: "currentColor",
    GRID: "var(--grid)",
    GROUND: "var(--ground)",
    BORDER: "var(--border)",
    PAPER: "var(--paper)",
    **{colour: f"var(--run{index})" for index, colour in enumerate(COLOURS)},
}
_OWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.S)


def inline(figure, title: str) -> str:
    """The figure as one <svg> element that fills its place; texts stay texts, and nothing in it has a ground."""
    import matplotlib

    literal(figure)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(content, format="svg", transparent=True)
    svg = _OWN.sub("", content.getvalue().decode()).strip()
    referred = set(re.findall(r'(?:#)([\w.-]+)(?:"|\))', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referred else "", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: NAMES.get(found[0], found[0]), svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height|xmlns\S*|version)="[^"]*"', "", head)
    rest = re.sub(r"\s*\n\s*", "\n", rest)
    return f'{head} role="img" aria-label="{html.escape(title)}">{rest}'
