from dataclasses import replace

import pytest

from gmmas_model.weights import Weights
from gmmas_portal.analysis.context import CaseContext, KnownModel, TissueResults
from gmmas_runtime.manifest import Origin, Standing
from gmmas_schema.errors import ModelError
from gmmas_schema.model import ModelDefinition
from gmmas_schema.model_card import Accuracy, DataCard, Figure, ModelCard, SplitAccuracy, SubsetAccuracy, TrainingCard
from gmmas_schema.vocabulary import Modality, Region, Split, Task
from gmmas_workflows.model_source import OpenedModel

SHA = "ab" * 32
FLAIR_T2 = (Modality.T2, Modality.FLAIR)


def _weights(**metadata: str) -> Weights:
    return Weights({}, ModelDefinition(), sha256=SHA, metadata=metadata)


def _split(split: Split, dice: float, *subsets: tuple[Modality, ...]) -> SplitAccuracy:
    figure = Accuracy(dice={Region.WT: Figure(value=dice, patients=12)})
    return SplitAccuracy(split=split, subsets=tuple(SubsetAccuracy(modalities=subset, sites=2, accuracy=figure) for subset in subsets))


def _card(**changes: object) -> ModelCard:
    training = TrainingCard(
        run="run-1",
        rounds=3,
        planned_rounds=3,
        seed=0,
        configuration="c" * 64,
        strategy="mean",
        server_step="mean",
        robustness="none",
        wire="fp32",
        secure=False,
    )
    values: dict[str, object] = {
        "name": "gmmas-demo",
        "kind": "best",
        "round": 3,
        "weights": SHA,
        "model_digest": "d" * 64,
        "definition": ModelDefinition(),
        "parameters": 1,
        "made_at": "2026-01-01",
        "software": {},
        "training": training,
        "data": DataCard(sites=4),
        "validation": _split(Split.VALIDATION, 0.7, FLAIR_T2, (Modality.T1CE,)),
        "test": _split(Split.TEST, 0.8, FLAIR_T2),
    }
    return ModelCard.model_validate(values | changes)


def _opened(card: bytes, standing: Standing = Standing.VOUCHED) -> OpenedModel:
    return OpenedModel(_weights(run="run-1", round="3"), Origin(standing), {"model-card.json": card})


def test_weights_alone_say_little() -> None:
    model = KnownModel.of(_weights())
    record = model.describe()
    assert (record.name, record.version, record.signed, record.calibrated, record.hospitals) == ("gmmas", "", False, False, None)
    assert record.weights_sha256 == SHA
    assert model.accuracy_of(FLAIR_T2) is None


def test_a_card_and_a_signature_are_told() -> None:
    record = KnownModel.of(_opened(_card().model_dump_json().encode())).describe()
    assert (record.name, record.version, record.signed, record.hospitals) == ("gmmas-demo", "run-1, round 3", True, 4)
    for standing in (Standing.UNSIGNED, Standing.SIGNED):  # anybody may sign: only an authority tells who it was
        assert not KnownModel.of(_opened(_card().model_dump_json().encode(), standing)).describe().signed
    assert KnownModel.of(_weights(), name="ours", version="7").describe().version == "7"


def test_accuracy_is_that_of_exactly_these_sequences_and_of_test_patients_first() -> None:
    model = KnownModel.of(_opened(_card().model_dump_json().encode()))
    for subset, dice in ((FLAIR_T2, 0.8), (FLAIR_T2[::-1], 0.8), ((Modality.T1CE,), 0.7)):
        found = model.accuracy_of(subset)
        assert found is not None
        assert found.accuracy.dice[Region.WT].value == dice
    assert model.accuracy_of((Modality.FLAIR,)) is None


@pytest.mark.parametrize("card", [b"{}", b"no json", _card(weights="c" * 64).model_dump_json().encode()])
def test_a_card_of_something_else_is_refused(card: bytes) -> None:
    with pytest.raises(ModelError, match="card"):
        KnownModel.of(_opened(card))


def test_a_known_model_stays_as_it_is() -> None:
    model = replace(KnownModel.of(_weights()), name="ours")
    assert KnownModel.of(model) is model


def test_a_grade_is_high_or_low() -> None:
    assert [TissueResults(grade=grade).marker(Task.GRADE) for grade in (2, 3, 4)] == [False, True, True]
    assert TissueResults().marker(Task.GRADE) is None
    with pytest.raises(ValueError, match="grade"):
        TissueResults(grade=1)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="birth"):
        CaseContext.model_validate({"birth_date": "1950-01-01"})
