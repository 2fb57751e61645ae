"""What the application knows, in one place: the stores, the model in use, and how a page is made."""

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from gmmas_portal.web.accounts import AccountStore, Role
from gmmas_portal.web.audit import AuditTrail
from gmmas_portal.web.cases import CaseRow, CaseStore
from gmmas_portal.web.gate import Gate, Visitor
from gmmas_portal.web.jobs import JobQueue
from gmmas_portal.web.model_copy import ModelPapers, read_papers
from gmmas_portal.web.settings import PortalFolder
from gmmas_portal.web.tables import Database
from gmmas_schema.case_record import NOTICE


@dataclass
class Desk:
    """The stores of one platform."""

    folder: PortalFolder
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.folder.database)
        self.accounts, self.audit = AccountStore(self.database), AuditTrail(self.database)
        self.cases, self.jobs = CaseStore(self.database), JobQueue(self.database)
        self.streams, self.closing = set[object](), threading.Event()

    @cached_property
    def papers(self) -> ModelPapers:
        """What is known of the model in use; a server that starts reads them anew."""
        return read_papers(self.folder)


def desk_of(request: Request) -> Desk:
    """Return what this application knows."""
    desk: Desk = request.app.state.desk
    return desk


def gate_of(request: Request) -> Gate:
    """Return who decides."""
    gate: Gate = request.app.state.gate
    return gate


def case_of(request: Request, key: str) -> CaseRow:
    """Return a case.

    Raises:
        NotThereError: there is none of this key.
    """
    return desk_of(request).cases.case(key)


def render(request: Request, name: str, /, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    """Return a page; what stands on every one is added."""
    visitor: Visitor = getattr(request.state, "visitor", Visitor())
    template = request.app.state.templates.get_template(name)
    shown = {
        "visitor": visitor,
        "csrf": visitor.csrf,
        "path": request.url.path,
        "institution": desk_of(request).folder.config.institution,
        "notice": NOTICE,
        "is_clinician": visitor.has(Role.CLINICIAN),
        "is_admin": visitor.has(Role.ADMIN),
        "is_patient": visitor.has(Role.PATIENT),
    }
    return HTMLResponse(template.render(shown | values), status_code=status_code)
