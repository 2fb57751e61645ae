"""A report as pages: A4, selectable text, notice and page number on every page.

Sentences stand as they are in the report; numbers in brackets name the sources at its end. The clinician's version has a table of the facts
besides. The same report gives the same bytes.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    Image,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from gmmas_portal.reports.material import is_untold
from gmmas_portal.reports.report import Audience, Report, Section, Sentence, Wording
from gmmas_schema.case_record import Fact, FactStatus

REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"
INK, QUIET, LINE, TINT = HexColor("#1d2733"), HexColor("#5b6775"), HexColor("#2f6f78"), HexColor("#eef4f4")
MARGIN: Final = 20 * mm
WIDTH: Final = A4[0] - 2 * MARGIN
ROOM: Final = 35 * mm
"""A table or list begins on a page that has as much room left."""

_UNIT: Final = re.compile(r"(?<=\d) (?=(?:ml|mm|%|months|years|millilitres|millimetres|percent)(?:\W|$))")
"""The space between a value and its unit, where no line ends."""

TITLES: Final = {Audience.CLINICIAN: "MRI findings: glioma analysis", Audience.PATIENT: "Your MRI pictures: what the program found"}
HEADINGS: Final = {
    Audience.CLINICIAN: {
        Section.SIZE: "Size",
        Section.PLACE: "Location",
        Section.PREDICTED: "Predicted from imaging",
        Section.OPEN: "Left open",
        Section.TISSUE: "Tissue",
        Section.EVIDENCE: "Published evidence",
        Section.IMAGES: "Images and accuracy",
        Section.ORIGIN: "Origin",
    },
    Audience.PATIENT: {
        Section.SIZE: "How large is it?",
        Section.PLACE: "Where is it?",
        Section.PREDICTED: "What kind is it?",
        Section.OPEN: "What is not known?",
        Section.TISSUE: "What did the tissue show?",
        Section.EVIDENCE: "What is generally known?",
        Section.IMAGES: "Which pictures were used?",
        Section.ORIGIN: "Where does this come from?",
    },
}
WORDINGS: Final = {
    Wording.TEMPLATE: "Worded by fixed templates.",
    Wording.LANGUAGE_MODEL: "Reworded by a language model; facts, figures and sources are those of the templates.",
    Wording.TEMPLATE_AFTER_REFUSAL: "Worded by fixed templates; a language model was asked, and no wording of it was accepted.",
}


@dataclass(frozen=True)
class Signature:
    """Who signed a report, and when (as it is to be read)."""

    name: str
    at: str


def render_pdf(report: Report, *, montage_png: bytes | None = None, signed: Signature | None = None) -> bytes:
    """Return a report as PDF.

    Args:
        report: either version.
        montage_png: slices with the outline (PNG), put on the first page.
        signed: printed at the end; without it the page says that nobody has signed.
    """
    _register_fonts()
    target, title = io.BytesIO(), TITLES[report.audience]
    document = BaseDocTemplate(
        target,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=26 * mm,
        bottomMargin=24 * mm,
        title=title,
        invariant=1,
        lang="en",
    )
    frame = Frame(MARGIN, 24 * mm, WIDTH, A4[1] - 50 * mm, leftPadding=0, rightPadding=0, topPadding=0, bottomPadding=0)
    document.addPageTemplates(PageTemplate(frames=[frame]))
    document.build(_flow(report, montage_png, signed), canvasmaker=partial(_NumberedCanvas, frame_page=partial(_frame_page, report, title)))
    return target.getvalue()


def _flow(report: Report, montage_png: bytes | None, signed: Signature | None) -> list[Flowable]:
    """Return all that stands on the pages."""
    plain = report.audience is Audience.PATIENT
    styles = _styles(plain=plain)
    flow: list[Flowable] = [
        Paragraph(escape(TITLES[report.audience]), styles["title"]),
        Paragraph(_subtitle(report), styles["quiet"]),
        Spacer(1, 4 * mm),
    ]
    flow.append(_box(escape(report.notice), styles["notice"]))
    if montage_png is not None:
        flow += [Spacer(1, 4 * mm), _picture(montage_png), Spacer(1, 1 * mm), Paragraph(_caption(report), styles["quiet"])]
    for section in report.sections():
        sentences = report.of_section(section)
        heading = Paragraph(HEADINGS[report.audience][section], styles["heading"])
        paragraphs = [Paragraph(_marked(report, sentence), styles["body"]) for sentence in sentences]
        flow += [KeepTogether([heading, paragraphs[0]]), *paragraphs[1:]]
    if not plain:
        flow += [CondPageBreak(ROOM), Paragraph("Facts", styles["heading"]), _facts_table(report, styles)]
    if report.citations:
        flow += [CondPageBreak(ROOM), Paragraph("Sources", styles["heading"])]
        flow += [
            Paragraph(f"[{c.number}] {escape(c.source)}. Population: {escape(c.population)}.{_partly(c.read)}", styles["source"])
            for c in report.citations
        ]
    signature = f"Signed by {escape(signed.name)}, {escape(signed.at)}." if signed else "Not signed."
    flow += [
        Spacer(1, 5 * mm),
        Paragraph(f"{signature} {WORDINGS[report.wording]}", styles["quiet"]),
        Paragraph(_digests(report), styles["quiet"]),
    ]
    return flow


def _subtitle(report: Report) -> str:
    made_at = datetime.fromisoformat(report.made_at).astimezone(UTC)
    return escape(f"Case {report.case} · analysed {made_at:%Y-%m-%d %H:%M} UTC · outline version {report.segmentation.version}")


def _caption(report: Report) -> str:
    if report.audience is Audience.PATIENT:
        return "Slices of your pictures with the outline, as if seen from the feet: the right side of the picture is your left side."
    return "Slices with the outline that was measured; radiological convention."


def _partly(read: str) -> str:
    return " As reported by others." if read == "report" else ""


def _digests(report: Report) -> str:
    return escape(
        f"Record {report.record_sha256[:16]}, evidence {report.evidence_sha256[:16]}, weights {report.model.weights_sha256[:16]}."
    )


def _marked(report: Report, sentence: Sentence) -> str:
    """Return a sentence with the numbers of its sources before the full stop."""
    numbers = ", ".join(str(number) for number in report.numbers_of(sentence))
    text, stop = escape(_UNIT.sub("\u00a0", sentence.text.rstrip("."))), "." if sentence.text.endswith(".") else ""
    return f'{text} <font color="#2f6f78">[{numbers}]</font>{stop}' if numbers else f"{text}{stop}"


def _facts_table(report: Report, styles: dict[str, Any]) -> Flowable:
    """Return the facts of the case as a table: label, value, where it comes from."""
    rows = [[Paragraph(text, styles["cellhead"]) for text in ("Finding", "Value", "Source")]]
    rows += [
        [Paragraph(escape(text), styles["cell"]) for text in (fact.label, _state(fact), fact.source)]
        for fact in report.facts
        if _stands_in_table(fact)
    ]
    table = Table(rows, colWidths=[WIDTH * 0.52, WIDTH * 0.3, WIDTH * 0.18], repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, LINE),
                ("LINEBELOW", (0, 1), (-1, -1), 0.25, HexColor("#d5dde0")),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ]
        )
    )
    return table


def _stands_in_table(fact: Fact) -> bool:
    return fact.id == "subtype.told" or not is_untold(fact.id)


def _state(fact: Fact) -> str:
    if fact.status is FactStatus.FOUND:
        return fact.value_text() if fact.confidence is None else f"{fact.value_text()} (p {fact.confidence:.2f})"
    return "left open" if fact.status is FactStatus.ABSTAINED else "not measured"


def _picture(png: bytes) -> Flowable:
    """Return a picture as wide as the text, and no higher than a third of the page."""
    width, height = ImageReader(io.BytesIO(png)).getSize()
    scale = min(WIDTH / width, A4[1] / 3 / height)
    return Image(io.BytesIO(png), width=width * scale, height=height * scale)


def _box(text: str, style: Any) -> Flowable:
    table = Table([[Paragraph(text, style)]], colWidths=[WIDTH])
    table.setStyle(
        TableStyle(
            [("BACKGROUND", (0, 0), (-1, -1), TINT), ("LINEBEFORE", (0, 0), (0, -1), 2.5, LINE), ("LEFTPADDING", (0, 0), (-1, -1), 8)]
        )
    )
    return table


def _frame_page(report: Report, title: str, canvas: Canvas, page: int, pages: int) -> None:
    """Draw header and footer."""
    canvas.setFillColor(QUIET)
    canvas.setFont(REGULAR, 7.5)
    canvas.drawString(MARGIN, A4[1] - 15 * mm, title)
    canvas.drawRightString(A4[0] - MARGIN, A4[1] - 15 * mm, f"Case {report.case}")
    canvas.setStrokeColor(LINE)
    canvas.setLineWidth(0.5)
    canvas.line(MARGIN, A4[1] - 17 * mm, A4[0] - MARGIN, A4[1] - 17 * mm)
    canvas.line(MARGIN, 18 * mm, A4[0] - MARGIN, 18 * mm)
    canvas.drawString(MARGIN, 13.5 * mm, report.notice)
    canvas.drawRightString(A4[0] - MARGIN, 13.5 * mm, f"Page {page} of {pages}")


class _NumberedCanvas(Canvas):  # type: ignore[misc]
    """A canvas that draws header and footer when it knows how many pages there are."""

    def __init__(self, *args: Any, frame_page: Callable[[Canvas, int, int], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frame, self._pages = frame_page, list[dict[str, Any]]()

    def showPage(self) -> None:  # noqa: N802, reportlab's name
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, state in enumerate(self._pages, start=1):
            self.__dict__.update(state)
            self._frame(self, number, len(self._pages))
            super().showPage()
        super().save()


def _styles(*, plain: bool) -> dict[str, Any]:
    """Return the paragraph styles; a patient's version has larger type."""
    size = 11.0 if plain else 9.2
    base = ParagraphStyle("body", fontName=REGULAR, fontSize=size, leading=size * 1.5, textColor=INK, spaceAfter=size * 0.35)
    return {
        "body": base,
        "title": ParagraphStyle("title", base, fontName=BOLD, fontSize=17, leading=22, spaceAfter=2),
        "heading": ParagraphStyle("heading", base, fontName=BOLD, fontSize=size + 1.8, leading=size + 6, textColor=LINE, spaceBefore=size),
        "quiet": ParagraphStyle("quiet", base, fontSize=7.8, leading=11, textColor=QUIET, spaceAfter=1),
        "notice": ParagraphStyle("notice", base, fontName=BOLD, fontSize=9, leading=12, spaceAfter=0),
        "source": ParagraphStyle("source", base, fontSize=7.8, leading=11, spaceAfter=3, leftIndent=16, firstLineIndent=-16),
        "cell": ParagraphStyle("cell", base, fontSize=8, leading=10.5, spaceAfter=0),
        "cellhead": ParagraphStyle("cellhead", base, fontName=BOLD, fontSize=8, leading=10.5, spaceAfter=0),
    }


@cache
def _register_fonts() -> None:
    """Make the fonts of matplotlib known: they hold Greek, Cyrillic and accents, which the fonts built into PDF lack."""
    package = find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    for name in (REGULAR, BOLD):
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
