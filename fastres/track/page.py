"""A page of HTML that needs no network and no other file: its frame, its tables, its pictures."""

import base64
import html
from collections.abc import Sequence

from fastres.track.pictures import BORDER, COLOURS, PAPER

# A page follows the reader's setting of light or dark, and so do the curves in it (svg.py): curves by run get lighter.
DARK_RUNS = ("#7fb0ff", "#ff8791", "#5fd3a0", "#f2bd6a", "#c39bf0", "#b4bec8", "#4fcbe6", "#e0a468")
LIGHT = {
    "ink": "#222222", "quiet": "#555555", "ground": "#ffffff", "grid": "#e4e4e4", "line": "#999999",
    "border": BORDER, "paper": PAPER, "note": "#fff3d6", "mark": "#e9a23b", "good": "#2a7d4f", "code": "#f5f5f5",
    **{f"run{index}": colour for index, colour in enumerate(COLOURS)},
}  # fmt: skip
DARK = {
    "ink": "#e2e4e8", "quiet": "#a3a9b2", "ground": "#15181d", "grid": "#31363e", "line": "#6b727c",
    "border": "#8b929c", "paper": "#f08a6c", "note": "#3a3015", "mark": "#e9a23b", "good": "#63c791", "code": "#22262d",
    **{f"run{index}": colour for index, colour in enumerate(DARK_RUNS)},
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


STYLE = (
    f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} img {{ filter: brightness(.85) }} }}
"""
    + """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
  color: var(--ink); background: var(--ground); overflow-wrap: anywhere }
h1 { font-size: 1.6em } h2 { margin-top: 2em; border-bottom: 1px solid var(--grid) } h3 { margin-bottom: .3em }
table { border-collapse: collapse; margin: .5em 0; font-variant-numeric: tabular-nums; font-size: .92em }
th, td { border-bottom: 1px solid var(--grid); padding: .25em .7em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid var(--line) }
div { overflow-x: auto }
img, figure svg { max-width: 100%; display: block; margin: .5em 0 }
.note { color: var(--quiet); font-size: .9em; margin-top: .2em }
.label { background: var(--note); border-left: 4px solid var(--mark); padding: .6em 1em }
.agrees { color: var(--good) } .disagrees { color: var(--paper); font-weight: bold } .open, .not { color: var(--quiet) }
.paper { color: var(--quiet); border-left: 3px solid var(--line); padding-left: .8em }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 1.5em }
figure { margin: 1em 0 0; min-width: 0 } figcaption { font-weight: bold }
figure svg { width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt }
figure text { fill: currentColor }
pre { background: var(--code); padding: .7em; overflow-x: auto }
@media (max-width: 600px) { body { margin: 0 auto } h1 { font-size: 1.3em } h2 { margin-top: 1.4em }
  th, td { padding: .25em .4em } }
"""
)
GENERATOR = '<meta name="generator" content="fastres">'


def document(title: str, label: str, parts: Sequence[str], refresh_s: float | None = None) -> str:
    """The whole page. `label`: what every reader must know first; `refresh_s`: how often a browser loads it anew."""
    refresh = [f'<meta http-equiv="refresh" content="{refresh_s:g}">'] if refresh_s else []
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8">{GENERATOR}',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            *refresh,
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f"<h1>{html.escape(title)}</h1>",
            f"<p class=label>{html.escape(label)}</p>",
            *parts,
            "</html>",
            "",
        ]
    )


def picture(content: bytes, alt: str) -> str:
    """A PNG with its bytes in the page."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def chart(svg: str, title: str, note: str = "") -> str:
    """Curves with their title, and below them what must be known to read them. `svg`: as svg.py makes it."""
    below = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}{below}</figure>"


def folded_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], shown: int, title: str = "", note: str = ""
) -> str:
    """The first `shown` rows, and behind a fold all of them."""
    first = table(header, rows[:shown], title, note)
    if len(rows) <= shown:
        return first
    return f"{first}<details><summary>{len(rows)} rows</summary>{table(header, rows)}</details>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", note: str = "") -> str:
    """A table of texts, the first column to the left."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    above = f"<h3>{html.escape(title)}</h3>" if title else ""
    below = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"{above}<div><table><tr>{head}</tr>{body}</table></div>{below}"
