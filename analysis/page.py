"""A page: blocks of words, tables and figures -> one self-contained HTML file.

Style, scripts and data are inlined; the page forbids itself to load anything (its
Content-Security-Policy), and figures are drawn when they come near the window.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from analysis import look
from analysis.figures import HEAD


class Answer(NamedTuple):
    """The sentences that a section is about."""

    sentences: Sequence[str]
    kind: str = "answer"


class Grid(NamedTuple):
    """A table; its cells may hold `code`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    wraps: bool = False  # words, not numbers
    words: int = 1  # columns from the left that hold words
    kind: str = "table"


class Figures(NamedTuple):
    """Figures side by side, where there is room."""

    figures: Sequence[go.Figure]
    kind: str = "figures"


class Choice(NamedTuple):
    """Figures one of which is shown."""

    about: str
    figures: Mapping[str, go.Figure]
    kind: str = "choice"


class Heading(NamedTuple):
    """A title within a section."""

    text: str
    kind: str = "heading"


class Command(NamedTuple):
    """What to type."""

    text: str
    kind: str = "command"


class Findings(NamedTuple):
    """What the doctor says."""

    findings: Sequence[Any]
    kind: str = "findings"


Block = str | Answer | Heading | Grid | Figures | Choice | Command | Findings


class Section(NamedTuple):
    key: str
    short: str  # in the list of contents
    title: str
    blocks: Sequence[Block]


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML, which opens without a network."""
    environment = Environment(loader=PackageLoader("analysis", "."), autoescape=True)
    environment.filters |= {"words": words, "tokens": tokens}
    now = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")
    return environment.get_template("report.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        light=look.LIGHT,
        dark=look.DARK,
        themes=as_script({"light": look.template(look.LIGHT), "dark": look.template(look.DARK)}),
        drawing=drawing,
        plotly=Markup(get_plotlyjs()),
        made=f"Made {now} by python -m analysis report.",
    )


def words(text: str) -> Markup:
    """Text in which what stands between ` is code."""
    parts = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(tokens(part)) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def tokens(code: str) -> Markup:
    """Code whose lines break between words only, not after each hyphen of an option."""
    return Markup(" ").join(Markup("<span>{}</span>").format(one) for one in code.split(" "))


def drawing(figure: go.Figure) -> Markup:
    """A figure, its caption, and its data for the script that draws it.

    The title becomes a caption, which wraps where a window is narrow, and leaves its room.
    """
    plain = figure.to_dict()
    layout = {k: v for k, v in plain["layout"].items() if k not in ("template", "title", "meta")}
    title = plain["layout"]["title"]
    narrow = (plain["layout"].get("meta") or {}).get("min_width", 0)
    layout["height"] -= HEAD
    layout["margin"] = layout["margin"] | {"t": layout["margin"]["t"] - HEAD}
    style = f"min-height:{layout['height']}px" + (f";min-width:{narrow}px" if narrow else "")
    return Markup(
        '<figure><figcaption>{}<span>{}</span></figcaption><div class="scroll">'
        '<div class="plot" style="{}"></div>'
        '<script type="application/json">{}</script></div></figure>'
    ).format(
        words(title["text"]),
        words(title["subtitle"]["text"].replace("<br>", " ")),
        style,
        as_script({"data": plain["data"], "layout": layout}),
    )


def as_script(value: Any) -> Markup:
    """JSON as it may stand in a script of a page."""
    return Markup(str(plotly.io.to_json(value, validate=False)).replace("<", "\\u003c"))
