"""Which evidence may stand beside which results: one line a rule, deterministic.

Figures of outcome and guidelines need a diagnosis on tissue; a prediction from images calls only the reminder that tissue decides.
Figures of trials on glioblastoma never stand without those of everyday care. Entries about adults are not cited for a minor. Where results
contradict each other, nothing follows from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from gmmas_portal.evidence.diagnosis import CDKN2A, GRADE, IDH, MGMT, MISMATCH, NAMED, NECROSIS, TissueFinding
from gmmas_portal.evidence.library import EvidenceLibrary
from gmmas_schema.case_record import Fact, FactStatus
from gmmas_schema.vocabulary import Subtype

PREDICTIONS: Final = ("subtype.told", "marker.idh", "marker.codeletion", "marker.grade", "marker.mgmt")
TRIALS: Final = ("evidence.stupp_2005", "evidence.stupp_2009", "evidence.stupp_2017")
BY_MGMT: Final = ("evidence.alnahhas_2020_methylated", "evidence.alnahhas_2020_unmethylated")
EVERYDAY_CARE: Final = ("evidence.brown_2022", "evidence.mendoza_mireles_2023")


@dataclass(frozen=True)
class Situation:
    """What the rules look at.

    Attributes:
        told: values of all facts that may be told, by id.
        tissue: what the results on tissue amount to.
        is_minor: the patient is under 18, as entered.
    """

    told: Mapping[str, object]
    tissue: TissueFinding
    is_minor: bool

    def is_a(self, diagnosis: Subtype, *grades: int) -> bool:
        """Return whether tissue shows this tumour, of one of these grades where some are named, in an adult."""
        return not self.is_minor and self.tissue.diagnosis is diagnosis and (not grades or self.tissue.grade in grades)


@dataclass(frozen=True)
class Rule:
    """Entries that may be cited when something holds, and the facts that this rests on, as far as they are there."""

    when: Callable[[Situation], bool]
    evidence: tuple[str, ...]
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """An entry that may be cited beside a case, and the facts for which it was chosen."""

    evidence: str
    facts: tuple[str, ...]


_OLIGODENDROGLIOMA, _ASTROCYTOMA, _GLIOBLASTOMA = Subtype.OLIGODENDROGLIOMA, Subtype.ASTROCYTOMA, Subtype.GLIOBLASTOMA

RULES: Final = (
    Rule(
        lambda s: s.tissue.diagnosis is None and not s.is_minor and any(name in s.told for name in PREDICTIONS),
        ("evidence.who_cns5_tissue",),
        PREDICTIONS,
    ),
    Rule(lambda s: s.told.get(MISMATCH) is True and not s.is_minor, ("evidence.park_2021",), (MISMATCH,)),
    Rule(
        lambda s: s.is_a(_OLIGODENDROGLIOMA),
        ("evidence.who_cns5_oligodendroglioma", "evidence.mohile_2022_oligodendroglioma"),
    ),
    Rule(lambda s: s.is_a(_OLIGODENDROGLIOMA, 3), ("evidence.lassman_2022", "evidence.cairncross_2013"), (GRADE,)),
    Rule(lambda s: s.is_a(_ASTROCYTOMA), ("evidence.who_cns5_astrocytoma",)),
    Rule(lambda s: s.is_a(_ASTROCYTOMA, 2), ("evidence.mohile_2022_astrocytoma_2", "evidence.reuss_2015_grade_2"), (GRADE,)),
    Rule(
        lambda s: s.is_a(_ASTROCYTOMA, 3),
        ("evidence.mohile_2022_astrocytoma_3", "evidence.catnon_2026", "evidence.reuss_2015_grade_3"),
        (GRADE,),
    ),
    Rule(lambda s: s.is_a(_ASTROCYTOMA, 4), ("evidence.mohile_2022_astrocytoma_4",), (GRADE,)),
    Rule(
        lambda s: s.is_a(_ASTROCYTOMA, 4) and s.told.get(CDKN2A) is True,
        ("evidence.who_cns5_astrocytoma_4", "evidence.wetzel_2024_deleted"),
        (CDKN2A,),
    ),
    Rule(lambda s: s.is_a(_ASTROCYTOMA, 4) and s.told.get(CDKN2A) is False, ("evidence.wetzel_2024_intact",), (CDKN2A, GRADE, NECROSIS)),
    Rule(
        lambda s: s.told.get(IDH) == "mutant" and (s.is_a(_OLIGODENDROGLIOMA, 2) or s.is_a(_ASTROCYTOMA, 2)),
        ("evidence.mellinghoff_2023",),
        (IDH, GRADE),
    ),
    Rule(lambda s: s.is_a(_GLIOBLASTOMA), ("evidence.who_cns5_glioblastoma", "evidence.mohile_2022_glioblastoma", *TRIALS, *EVERYDAY_CARE)),
    Rule(lambda s: s.is_a(_GLIOBLASTOMA) and s.told.get(MGMT) == "methylated", BY_MGMT[:1], (MGMT,)),
    Rule(lambda s: s.is_a(_GLIOBLASTOMA) and s.told.get(MGMT) == "unmethylated", BY_MGMT[1:], (MGMT,)),
)


def choose_evidence(
    facts: Mapping[str, Fact], tissue: TissueFinding, *, library: EvidenceLibrary, on: date, is_minor: bool = False
) -> tuple[Chosen, ...]:
    """Return the entries that may be cited beside these facts, in the order of the rules, each once.

    An entry that is not verified or has expired on that day is left out; with the last figures of everyday care go those of trials.

    Raises:
        ConfigError: a rule names an entry that is not in the library.
    """
    situation = Situation({name: fact.value for name, fact in facts.items() if fact.status is FactStatus.FOUND}, tissue, is_minor)
    chosen: dict[str, Chosen] = {}
    for rule in RULES:
        if rule.when(situation):
            because = tuple(name for name in rule.because if name in situation.told) or tissue.facts
            diagnosed = tuple(name for name in (NAMED,) if name in situation.told and tissue.diagnosis is not None and name not in because)
            for name in rule.evidence:
                if library.entry(name).may_be_cited(on=on):
                    chosen.setdefault(name, Chosen(name, because + diagnosed))
    if not any(name in chosen for name in EVERYDAY_CARE):
        chosen = {name: entry for name, entry in chosen.items() if name not in (*TRIALS, *BY_MGMT)}
    return tuple(chosen.values())
