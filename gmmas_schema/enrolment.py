"""What a hospital hands in to be let into a federation (the enrolment file), and what the coordinator keeps of it."""

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.messages import PROTOCOL_VERSION

ENROLMENT_DAYS: Final = 30
"""An enrolment file is taken for so long after it was made."""


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


Line = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
KeyText = Annotated[str, Field(max_length=512), AfterValidator(_one_line)]


class Enrolment(FrozenModel):
    """The content of an enrolment file; nothing in it is of a patient, and no private key.

    Attributes:
        site: name of the site, as in its site.yaml.
        public_key: of the node, OpenSSH.
        contact: whom the coordinator can call.
        software: release that the site runs.
        protocol: version of the messages that it speaks.
        made: when.
    """

    kind: Literal["gmmas-enrolment-1"] = "gmmas-enrolment-1"
    site: str = Field(pattern=SITE_NAME)
    public_key: KeyText
    contact: Line = ""
    software: Line
    protocol: int = PROTOCOL_VERSION
    made: AwareDatetime


class EnrolledKey(FrozenModel):
    """A key that the coordinator has enrolled; a site that got a new key has several, under one name.

    Attributes:
        public_key: of the node, OpenSSH.
        key_sha256: hex digest (SubjectPublicKeyInfo, DER).
        enrolled: when.
        contact: from the enrolment file.
        software: from the enrolment file; empty for a bare .pub file.
        protocol: from the enrolment file.
        signed: whether an enrolment file vouched for it, or a bare .pub file came.
    """

    public_key: KeyText
    key_sha256: str
    enrolled: datetime
    contact: Line = ""
    software: Line = ""
    protocol: int | None = None
    signed: bool = False


class SiteHistory(FrozenModel):
    """Every key that a site was ever enrolled with, the newest last."""

    site: str
    keys: tuple[EnrolledKey, ...] = ()
