"""A page of HTML that needs no network and no other file: its frame, its tables, its pictures."""

import base64
import html
from collections.abc import Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.6em } h2 { margin-top: 2em; border-bottom: 1px solid #ddd } h3 { margin-bottom: .3em }
table { border-collapse: collapse; margin: .5em 0; font-variant-numeric: tabular-nums; font-size: .92em }
th, td { border-bottom: 1px solid #e4e4e4; padding: .25em .7em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #999 }
div { overflow-x: auto }
img { max-width: 100%; display: block; margin: .5em 0 } .note { color: #555; font-size: .9em; margin-top: .2em }
.label { background: #fff3d6; border-left: 4px solid #e9a23b; padding: .6em 1em }
.agrees { color: #2a7d4f } .disagrees { color: #b5472f; font-weight: bold } .open, .not { color: #777 }
.paper { color: #444; border-left: 3px solid #bbb; padding-left: .8em }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 1em }
pre { background: #f5f5f5; padding: .7em; overflow-x: auto }
"""
KINDS = {"png": "image/png", "svg": "image/svg+xml"}


def document(title: str, label: str, parts: Sequence[str], refresh_s: float | None = None) -> str:
    """The whole page. `label`: what every reader must know first; `refresh_s`: how often a browser loads it anew."""
    refresh = [f'<meta http-equiv="refresh" content="{refresh_s:g}">'] if refresh_s else []
    return "\n".join([
        "<!doctype html>", '<html lang="en"><meta charset="utf-8">', *refresh, f"<title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style>", f"<h1>{html.escape(title)}</h1>", f"<p class=label>{html.escape(label)}</p>",
        *parts, "</html>", "",
    ])  # fmt: skip


def picture(content: bytes, alt: str, kind: str = "png") -> str:
    """A picture with its bytes in the page."""
    return f'<img alt="{html.escape(alt)}" src="data:{KINDS[kind]};base64,{base64.b64encode(content).decode()}">'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", note: str = "") -> str:
    """A table of texts, the first column to the left."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    above = f"<h3>{html.escape(title)}</h3>" if title else ""
    below = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"{above}<div><table><tr>{head}</tr>{body}</table></div>{below}"
