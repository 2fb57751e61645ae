"""No adversarial rewrite reaches a report. The attacks are data, each goes through a real endpoint."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from gmmas_portal.language.aliases import Aliases
from gmmas_portal.language.rewriting import rewrite_report
from gmmas_portal.language.verifier import FaultCode, find_faults, read_answer
from gmmas_portal.language.vocabulary import read_vocabulary
from gmmas_portal.reports.report import Wording
from tests.gmmas_portal.language.fake_model import FakeModel, as_given
from tests.gmmas_portal.sample_case import sample_report

ATTACKS: list[dict[str, Any]] = [
    attack
    for name in ("attacks.yaml", "later_attacks.yaml")
    for attack in yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
]
REPORT = sample_report()


def answer_of(attack: dict[str, Any]) -> str:
    if "body" in attack:
        return str(attack["body"])
    change = {"text": attack["text"]} | ({"cites": attack["cites"]} if attack.get("cites") is not None else {})
    return as_given(REPORT.sentences, **{attack["of"].replace(".", "__"): change})


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack['why']}: {attack.get('text', attack.get('body'))[:60]}")
def test_attack_does_not_reach_the_report(attack: dict[str, Any], fake_model: FakeModel) -> None:
    fake_model.answer(answer_of(attack))
    report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
    assert report.sentences == REPORT.sentences
    assert report.wording is Wording.TEMPLATE_AFTER_REFUSAL
    assert len(fake_model.requests) == 2, "one retry with the reasons"
    assert [call.attempt for call in fake_model.calls] == [1, 2]
    assert all(call.faults for call in fake_model.calls)


def test_attacks_are_many_of_each_kind_and_aim_at_sentences_that_exist() -> None:
    kinds = Counter(attack["why"] for attack in ATTACKS)
    assert len(ATTACKS) >= 100
    assert min(kinds.values()) >= 3
    ids = {sentence.id for sentence in REPORT.sentences}
    assert {attack["of"] for attack in ATTACKS if "of" in attack} <= ids


def test_what_the_attacks_are_for_differs_from_the_given_sentence() -> None:
    given = {sentence.id: sentence.template for sentence in REPORT.sentences}
    for attack in ATTACKS:
        if "text" in attack and attack.get("cites") is None and attack["why"] != "citation":
            assert attack["text"] != given[attack["of"]]


def test_most_refusals_have_the_name_of_what_is_wrong() -> None:
    """A refusal's name matters to whoever reads the log; what is not recognised by name is refused by the list of words all the same."""
    own = {"open-question": {FaultCode.CONTRADICTION}, "language": {FaultCode.UNKNOWN_WORD}}
    aliases = Aliases.of(REPORT.sentences)
    hidden = [aliases.hide(sentence) for sentence in REPORT.sentences]
    known = frozenset({*(fact.id for fact in REPORT.facts), *aliases.evidence.values()})
    named = []
    for attack in ATTACKS:
        rewrites, faults = read_answer(answer_of(attack), hidden)
        for sentence in hidden:
            if sentence.id in rewrites:
                faults += find_faults(rewrites[sentence.id], sentence, vocabulary=read_vocabulary(), known=known)
        named.append(bool({attack["why"], *own.get(attack["why"], set())} & {fault.code.value for fault in faults}))
    assert sum(named) >= 0.75 * len(ATTACKS)
