"""What the tests of refusals share: attempts up to a phase, and advertisements that are not what they seem."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gmmas_schema.errors import ProtocolError, ReasonCode
from strategies.secure.documents import (
    Advertisement,
)
from strategies.secure.keys import KeyPair, sign
from tests.strategies.secure.attempts import KEYS, Attempt, make_site, make_terms, make_updates

TERMS = make_terms(threshold=3)
UPDATES, WEIGHTS = make_updates(9)


def attempt(until=5, terms=TERMS, **options):
    return Attempt(terms, UPDATES, WEIGHTS, **options).run(until=until)


def signed_by(key, advertisement):
    return advertisement.model_copy(update={"signature": sign(key, *advertisement.signed_parts())})


def advertised(site="elm", terms=TERMS):
    return Advertisement.model_validate_json(make_site(site, terms).advertise(WEIGHTS[site]))


def refused(code=ReasonCode.TRUST, match=""):
    return pytest.raises(ProtocolError, match=rf"(?s){match}.*\[{code}\]|(?s:\[{code}\].*{match})")


def bad_keys():
    true = advertised()
    stranger = ec.generate_private_key(ec.SECP384R1())
    return {
        "signed by nobody": true.model_copy(update={"signature": bytes(96)}),
        "signed by a stranger": signed_by(stranger, true),
        "signed by another site": signed_by(KEYS["ash"], true),
        "keys exchanged after signing": true.model_copy(update={"box_key": KeyPair.make().public}),
        "groups added after signing": true.model_copy(update={"seeds": {**true.seeds, "head.idh": bytes(32)}}),
        "replayed from an attempt before": advertised(terms=make_terms(threshold=3, attempt=2)),
        "replayed from a round before": advertised(terms=make_terms(threshold=3, number=2)),
        "replayed from another run": advertised(terms=make_terms(threshold=3, run="other")),
        "replayed from before a restart": advertised(terms=make_terms(threshold=3, nonce=b"\1" * 32)),
        "replayed, under this attempt's name": advertised(terms=make_terms(threshold=3, attempt=2)).model_copy(
            update={"context": TERMS.context()}
        ),
    }
