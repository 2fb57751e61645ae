"""Pages hold the report's sentences as selectable text, the notice and the page number each; names cannot break them."""

import base64
import io
import re
import zlib

import pytest
from PIL import Image

from gmmas_portal.reports.pdf import Signature, render_pdf
from gmmas_portal.reports.report import Audience, Report, Wording
from gmmas_schema.case_record import NOTICE
from tests.gmmas_portal.sample_case import sample_report


def montage() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (900, 300), (30, 30, 30)).save(target, "PNG")
    return target.getvalue()


def streams(pdf: bytes) -> list[bytes]:
    """Return the decoded streams of a PDF as ReportLab writes them."""
    found = []
    for head, body in re.findall(rb"<<(.*?)>>\s*stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        data = body.strip()
        if b"ASCII85Decode" in head:
            data = base64.a85decode(data.removesuffix(b"~>"))
        found.append(zlib.decompress(data) if b"FlateDecode" in head else data)
    return found


def read_pages(pdf: bytes) -> list[str]:
    """Return the text of each page, from the fonts' own tables of characters: what a reader can select and search."""
    objects = dict(re.findall(rb"(\d+) 0 obj\r?\n(.*?)endobj", pdf, re.DOTALL))
    fonts = {}
    for content in objects.values():
        if name := re.search(rb"/Name /(\S+)", content):
            reference = re.search(rb"/ToUnicode (\d+) 0 R", content)
            if reference:
                [table] = streams(reference[1] + b" 0 obj\n" + objects[reference[1]])
                fonts[name[1]] = _characters(table)
    assert fonts
    pages = []
    for stream in streams(pdf):
        if b"BT" in stream and b"Tj" in stream:
            text, font = "", {}
            for name, shown in re.findall(rb"/(\S+) [\d.]+ Tf|\(((?:\\.|[^\\()])*)\) Tj", stream, re.DOTALL):
                if name:
                    font = fonts.get(name, {})  # F1 is set at the top of a page and writes nothing
                else:
                    text += "".join(font[code] for code in _unescape(shown))
                    text += " "
            pages.append(text)
    return pages


def _characters(table: bytes) -> dict[int, str]:
    blocks = re.findall(rb"beginbfchar(.*?)endbfchar", table, re.DOTALL)
    return {int(code, 16): chr(int(name, 16)) for block in blocks for code, name in re.findall(rb"<(\w+)> <(\w+)>", block)}


def _unescape(shown: bytes) -> bytes:
    plain = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
    return re.sub(rb"\\([0-7]{3}|.)", lambda m: bytes([int(m[1], 8)]) if m[1].isdigit() else plain.get(m[1], m[1]), shown, flags=re.DOTALL)


def squeeze(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("audience", list(Audience))
def test_pages_hold_every_sentence_notice_and_number(audience: Audience) -> None:
    report = sample_report(audience)
    pages = read_pages(render_pdf(report, montage_png=montage(), signed=Signature(name="Dr. A. Adler", at="28 November 2026")))
    whole = squeeze(re.sub(r"\[[\d, ]+\]", "", " ".join(pages)))
    for sentence in report.sentences:
        assert squeeze(sentence.text.rstrip(".")) in _without_furniture(whole, report, len(pages))
    for number, page in enumerate(pages, start=1):
        assert squeeze(NOTICE) in squeeze(page)
        assert squeeze(f"Page {number} of {len(pages)}") in squeeze(page)
    assert squeeze("Signed by Dr. A. Adler, 28 November 2026.") in whole
    for citation in report.citations:
        assert squeeze(citation.source) in squeeze(" ".join(pages))


def _without_furniture(whole: str, report: Report, pages: int) -> str:
    """Return text without headers and footers, between which a sentence may break."""
    for number in range(1, pages + 1):
        whole = whole.replace(squeeze(f"{NOTICE} Page {number} of {pages}"), "")
    return re.sub(r"(MRIfindings:gliomaanalysis|YourMRIpictures:whattheprogramfound)Case" + re.escape(report.case), "", whole)


def test_same_report_gives_the_same_bytes() -> None:
    assert render_pdf(sample_report()) == render_pdf(sample_report())


def test_unsigned_report_says_so_and_wording_is_marked() -> None:
    report = sample_report().model_copy(update={"wording": Wording.TEMPLATE_AFTER_REFUSAL})
    text = squeeze(" ".join(read_pages(render_pdf(report))))
    assert squeeze("Not signed.") in text
    assert squeeze("a language model was asked, and no wording of it was accepted") in text


def test_names_are_text_and_no_markup() -> None:
    name = '<font size="90">Ünal & Łukasz</font> <img src="file:///etc/passwd"/> Δοκιμή'
    text = squeeze(" ".join(read_pages(render_pdf(sample_report(), signed=Signature(name=name, at="today")))))
    assert squeeze(name) in text


def test_table_of_facts_tells_no_value_of_an_open_question() -> None:
    pages = squeeze(" ".join(read_pages(render_pdf(sample_report()))))
    assert squeeze("MGMT promoter status by imaging left open network") in pages
