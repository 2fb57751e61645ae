"""The card of a run's model, from runs of stand-in sites: what it says, what it withholds, what it does not invent."""

import json
from pathlib import Path

import pytest

from gmmas_model.weights import load_weights
from gmmas_runtime.manifest import check_manifest, write_manifest
from gmmas_schema.errors import ModelError, ReasonCode, TrustError
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.manifest import CARD_FILE
from gmmas_schema.messages import Interval
from gmmas_schema.model_card import ModelCard
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Split, Task
from gmmas_workflows.training import LocalTrainer
from server.card_figures import mean_of
from server.card_text import LONGEST_DESCRIPTION, card_markdown, card_summary
from server.checkpoint import RunFolder
from server.deployment import init_coordinator
from server.events import EventLog
from server.model_card import read_card
from server.publishing import publish_card, signer_of
from tests.client import tiny_sites
from tests.server.simulated_sites import SimulatedSite, make_config, make_grid, run

T2_FLAIR = (Modality.T2, Modality.FLAIR)


def published(folder: RunFolder, kind: str = "best") -> ModelCard:
    card = read_card(folder.model_path(kind))
    assert card is not None
    return card


def run_to_end(folder: Path, *sites: SimulatedSite, config: FederationConfig | None = None) -> RunFolder:
    made = RunFolder.create(folder, config or make_config(rounds=2, sites=len(sites), replies=1))
    run(make_grid(*sites), made)
    return made


def test_a_card_says_what_the_run_was_and_who_took_part(tmp_path: Path) -> None:
    few = {Task.SEGMENTATION: 15, Task.IDH: 20}
    folder = run_to_end(tmp_path / "run", SimulatedSite("north", patients=12), SimulatedSite("south", T2_FLAIR, few))
    card = published(folder)
    assert (card.round, card.weights) == (folder.read_result().best_round, folder.read_result().best_sha256)
    assert card.training.run == folder.run
    assert card.training.configuration == folder.config.digest()
    assert card.training.strategy == "holders, weights sqrt, region_rows True, fairness 0.0"
    assert (card.training.secure, card.training.privacy) == (False, None)
    assert card.data.sites == 2
    assert set(card.data.by_site) == {"site-1", "site-2"}
    by_modalities = {own.modalities: own for own in card.data.by_site.values()}
    assert by_modalities[MODALITIES].rounds == by_modalities[T2_FLAIR].asked == 2
    assert card.data.labelled[Task.SEGMENTATION] in (35, None)
    assert by_modalities[T2_FLAIR].software == ("test",)
    assert card.data.exclusions == ()
    assert card.cost.bytes_up > 0
    assert card.cost.round_hours is not None
    assert card.test is not None
    assert {subset.modalities for subset in card.test.subsets} == {MODALITIES, T2_FLAIR}
    # The test of a site is over four patients each: the figure is told, the number is not.
    figures = [own.dice[Region.WT] for own in card.test.sites.values()]
    assert all(0 <= figure.value <= 1 and figure.patients is None for figure in figures)
    assert any("13 of the 15 subsets" in text for text in card.not_measured)
    assert any("AUC of 1p/19q" in text for text in card.not_measured)


def test_no_name_of_a_site_is_in_what_is_published(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("charite"), SimulatedSite("mayo"))
    for kind in ("best", "last"):
        for file in folder.model_path(kind).iterdir():
            content = file.read_bytes()
            assert b"charite" not in content
            assert b"mayo" not in content
    assert set(json.loads((folder.path / "pseudonyms.json").read_text())["sites"]) == {"charite", "mayo"}


def test_what_was_left_out_is_told_by_code_and_without_a_reason_of_the_sites_own(tmp_path: Path) -> None:
    def spoil(report, tensors):
        return report, {name: value * float("nan") for name, value in tensors.items()}

    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"), SimulatedSite("east", alter=spoil))
    card = published(folder)
    assert card.data.sites == 2
    (told,) = card.data.exclusions
    assert told.endswith(f"took no part: none of its answers counted ({ReasonCode.REPLY_REFUSED})")
    assert "east" not in told


def test_a_private_run_tells_its_epsilon(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    privacy = PrivacyConfig(clip_norm=1.0, noise_multiplier=8.0, epsilon=5.0)
    config = make_config(rounds=1, sites=2, replies=1).model_copy(update={"privacy": privacy})
    card = published(run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"), config=config))
    assert card.training.privacy.releases == 1
    assert 0 < card.training.privacy.epsilon < 5
    assert "epsilon 0." in card_markdown(card)
    assert not any("No differential privacy" in text for text in card.limits)


def test_the_last_model_is_not_tested_and_says_so(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"), config=make_config(rounds=3, replies=1))
    result, last = folder.read_result(), published(folder, "last")
    if result.best_round == result.rounds:
        assert last.test is not None
        return
    assert last.test is None
    assert "not measured: only the best model of a run is tested." in card_markdown(last)


def test_the_text_shows_gaps_as_gaps(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("north", T2_FLAIR, {Task.SEGMENTATION: 20}), config=make_config(sites=1, replies=1))
    text = card_markdown(published(folder))
    assert "withheld" in text
    assert "No hospital held T1 or T1ce" in text
    assert "None" not in text
    assert "nan" not in text
    summary = card_summary(published(folder))
    assert len(summary) <= LONGEST_DESCRIPTION
    assert "**Research only. Not a medical device.**" in summary


def test_a_card_that_is_made_again_from_the_folder_says_the_same(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"))
    before = published(folder)
    (folder.model_path("best") / CARD_FILE).unlink()
    again = publish_card(folder, "best")
    volatile = {"made_at": "", "cost": before.cost}
    assert again.model_copy(update=volatile) == before.model_copy(update=volatile)
    assert again.cost.bytes_up == before.cost.bytes_up
    assert published(folder) == again


def test_nothing_but_what_the_run_made_is_signed_anew(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"))
    place = folder.model_path("last")
    (place / "calibration.json").write_text((place / "calibration.json").read_text() + " ")
    with pytest.raises(TrustError, match="not the one that was published"):
        publish_card(folder, "last")
    for name in ("model.safetensors", "model.json"):
        (place / name).write_bytes((folder.round_path(0) / name).read_bytes())
    for name in ("manifest.json", "calibration.json"):
        (place / name).unlink()
    with pytest.raises(ModelError, match="not what the run made"):
        publish_card(folder, "last")


def test_a_signed_model_does_not_lose_its_signature_where_the_key_is_not(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"))
    signer = signer_of(init_coordinator(tmp_path / "coordinator"))
    write_manifest(folder.model_path("best"), model_digest=folder.config.model.digest(), signer=signer)
    with pytest.raises(TrustError, match="would lose its signature"):
        publish_card(folder, "best")
    assert check_manifest(folder.model_path("best")).is_signed


def test_a_card_that_cannot_be_made_costs_no_model(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("server.publishing.make_card", lambda *_, **__: 1 / 0)
    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"))
    assert folder.read_result() is not None
    assert read_card(folder.model_path("best")) is None
    assert "the model card could not be made" in caplog.text


def test_the_mean_of_hospitals_is_weighted_and_its_interval_shrinks() -> None:
    one, other = Interval(value=0.8, low=0.7, high=0.9, n=30), Interval(value=0.5, low=0.4, high=0.6, n=10)
    mean = mean_of([one, other])
    assert mean.value == pytest.approx(0.725)
    assert mean.n == 40
    half = ((0.75 * 0.1) ** 2 + (0.25 * 0.1) ** 2) ** 0.5
    assert (mean.low, mean.high) == (pytest.approx(0.725 - half), pytest.approx(0.725 + half))
    assert mean_of([one]) == one
    assert mean_of([one, Interval(value=0.5, n=10)]).low is None


def test_refused_nodes_are_part_of_the_account(tmp_path: Path) -> None:
    folder = run_to_end(tmp_path / "run", SimulatedSite("north"), SimulatedSite("south"))
    log = EventLog(folder.events_path)
    log.emit(EventKind.SITE_REFUSED, site="west", code=ReasonCode.MODEL_DEFINITION, message="another version")
    log.close()
    (told,) = publish_card(folder, "best").data.exclusions
    assert told.endswith("(E_MODEL_DEFINITION)")
    assert published(folder).validation.split is Split.VALIDATION


def test_a_run_that_measures_subsets_tells_what_each_gets(tmp_path: Path) -> None:
    sites = [make_site("north", MODALITIES, 0), make_site("south", T2_FLAIR, 30)]
    config = tiny_sites.make_config(2).model_copy(update={"rounds": 1, "measure_subsets": True})
    folder = RunFolder.create(tmp_path / "run", config)
    result = tiny_sites.run(sites, folder)
    assert len(result.subsets) == 15
    assert result.subsets["t2+flair"].sites.keys() == {"north", "south"}
    assert result.subsets["t1"].sites.keys() == {"north"}
    assert all(not record.subsets for record in result.ledger)
    card = published(folder)
    by_name = {subset.modalities: subset for subset in card.test.subsets}
    assert len(by_name) == 15
    assert (by_name[T2_FLAIR].sites, by_name[MODALITIES].sites) == (2, 1)
    figure, both = by_name[T2_FLAIR].accuracy.dice[Region.WT], result.subsets["t2+flair"]
    assert figure.value == pytest.approx(both.metrics["dice_wt"], abs=1e-4)
    assert not any("subsets of the sequences" in text for text in card.not_measured)
    again = publish_card(folder, "best")
    assert again.test == card.test


def make_site(name: str, modalities, first: int) -> LocalTrainer:
    parts = {Split.TRAIN: range(3), Split.VALIDATION: range(3, 5), Split.TEST: range(5, 8)}
    samples = {split: [tiny_sites.make_sample(first + number, modalities) for number in numbers] for split, numbers in parts.items()}
    return LocalTrainer(tiny_sites.TINY, samples, modalities=modalities, site=name, device="cpu", threads=1)


def test_what_no_site_taught_is_a_limit_and_part_of_the_weights(tmp_path: Path) -> None:
    """One site holds T1ce and has no labels, so nothing of T1ce was learned although somebody holds it."""
    labels = {Task.SEGMENTATION: 20, Task.IDH: 0, Task.CODELETION: 0}
    folder = run_to_end(tmp_path / "run", SimulatedSite("north", T2_FLAIR, labels), SimulatedSite("south", labelled={}))
    for kind in ("best", "last"):
        weights, limits = load_weights(folder.model_path(kind)), published(folder, kind).limits
        assert weights.trained == TrainedParts(modalities=T2_FLAIR, heads=REGIONS)
        assert "No update of the encoder of T1 or T1ce counted: it is as it was drawn at the start." in limits
        assert [text for text in limits if "is untrained" in text] == [
            f"No update of the head of {name} counted: it is untrained." for name in ("IDH", "1p/19q")
        ]
