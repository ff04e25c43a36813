"""report.html: everything of a study on one page that needs no network and no other file."""

import html
from dataclasses import dataclass
from pathlib import Path

from fastres.study.findings.claims import Verdict
from fastres.study.findings.tables import Table
from fastres.track.page import document, picture


@dataclass(frozen=True)
class Section:
    """A heading with what belongs below it, all optional: what the paper says, a picture, tables, verdicts."""

    title: str
    paper: str = ""
    picture: Path | None = None
    tables: tuple[Table, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    text: str = ""


def file_of(key: str) -> str:
    """The name of the file of a picture."""
    return key.replace(" ", "_") + ".png"


def page(title: str, label: str, sections: list[Section]) -> str:
    """The whole page. `label`: what every reader must know first."""
    return document(title, label, [_section(section) for section in sections])


def _section(section: Section) -> str:
    lines = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.paper:
        lines.append(f"<p class=paper>The paper: {html.escape(section.paper)}</p>")
    if section.picture is not None:
        lines.append(picture(section.picture.read_bytes(), section.title))
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
