"""report.html: everything of a study on one page that needs no network and no other file."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path

from fastres.study.claims import Verdict
from fastres.study.tables import Table

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
pre { background: #f5f5f5; padding: .7em; overflow-x: auto }
"""


@dataclass(frozen=True)
class Section:
    """A heading with what belongs below it, all optional: what the paper says, a picture, tables, verdicts."""

    title: str
    paper: str = ""
    picture: Path | None = None
    tables: tuple[Table, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    text: str = ""


def page(title: str, label: str, sections: list[Section]) -> str:
    """The whole page. `label`: what every reader must know first."""
    parts = [_section(section) for section in sections]
    return "\n".join([
        "<!doctype html>", '<html lang="en"><meta charset="utf-8">', f"<title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style>", f"<h1>{html.escape(title)}</h1>", f"<p class=label>{html.escape(label)}</p>",
        *parts, "</html>", "",
    ])  # fmt: skip


def _section(section: Section) -> str:
    lines = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.paper:
        lines.append(f"<p class=paper>The paper: {html.escape(section.paper)}</p>")
    if section.picture is not None:
        content = base64.b64encode(section.picture.read_bytes()).decode()
        lines.append(f'<img alt="{html.escape(section.title)}" src="data:image/png;base64,{content}">')
    lines += [table.html() for table in section.tables]
    if section.verdicts:
        lines.append(_verdicts(section.verdicts))
    if section.text:
        lines.append(f"<pre>{html.escape(section.text)}</pre>")
    return "\n".join(lines)


def _verdicts(verdicts: tuple[Verdict, ...]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(v.claim.text)}</td><td class={v.word.split()[0]}>{html.escape(v.word)}</td>"
        f"<td>{html.escape(v.figures)}</td></tr>"
        for v in verdicts
    )
    return f"<table><tr><th>the paper says</th><th>these runs</th><th>error</th></tr>{rows}</table>"
