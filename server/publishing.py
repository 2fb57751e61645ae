"""Publishing a run's models: each with its model card, and signed where the run belongs to a coordinator."""

import logging
from pathlib import Path
from typing import Final, Literal

from gmmas_model.weights import Weights, load_weights
from gmmas_runtime.files import write_atomic
from gmmas_runtime.keys import SIGNING_CERTIFICATE, SIGNING_KEY, issue_signing_certificate
from gmmas_runtime.manifest import Signer, check_manifest, write_manifest
from gmmas_schema.errors import GmmasError, ModelError, TrustError
from gmmas_schema.events import EventKind
from gmmas_schema.manifest import CARD_FILE, CARD_TEXT
from gmmas_schema.model_card import ModelCard
from server.card_text import card_markdown
from server.checkpoint import RunFolder
from server.events import read_events
from server.folder import CoordinatorFolder
from server.model_card import ModelEvidence, make_card
from server.pseudonyms import pseudonyms_of
from server.submission import read_submission

logger = logging.getLogger(__name__)

SIGNING: Final = "signing"
"""Folder of signing.pem and signing.key in the coordinator's folder."""

KINDS: Final[tuple[Literal["best", "last"], ...]] = ("best", "last")


def coordinator_of(run_dir: Path) -> CoordinatorFolder | None:
    """Return the coordinator that a run was submitted to; None for a simulation, or where its folder is no longer there."""
    submission = read_submission(run_dir)
    try:
        return None if submission is None else CoordinatorFolder.open(submission.coordinator)
    except GmmasError:
        return None


def signer_of(coordinator: CoordinatorFolder) -> Signer:
    """Return what signs a coordinator's models; its certificate is issued when it is first needed.

    Raises:
        TrustError: the authority or the signing key is missing, damaged, expired or readable by others.
    """
    folder = coordinator.path / SIGNING
    if not (folder / SIGNING_CERTIFICATE).exists() and not (folder / SIGNING_KEY).exists():
        issue_signing_certificate(coordinator.authority, folder, name=f"{coordinator.config.name} models")
    return Signer.load(folder / SIGNING_CERTIFICATE, folder / SIGNING_KEY)


def signer_for_run(run_dir: Path) -> Signer | None:
    """Return what signs the models of a run, or None where nothing can: a run's models are not lost for want of a signature."""
    coordinator = coordinator_of(run_dir)
    try:
        return None if coordinator is None else signer_of(coordinator)
    except (GmmasError, OSError) as error:
        logger.warning("the models of this run are published without a signature: %s", error)
        return None


def card_documents(folder: RunFolder, evidence: ModelEvidence) -> dict[str, bytes]:
    """Return the files of a model's card by name, or none where it cannot be made: the model is worth more than its card."""
    try:
        return documents_of(describe_model(folder, evidence))
    except Exception:
        logger.exception("the model card could not be made")
        return {}


def describe_model(folder: RunFolder, evidence: ModelEvidence) -> ModelCard:
    """Return the card of a run's model; hospitals stand in it under the coordinator's pseudonyms."""
    coordinator = coordinator_of(folder.path)
    sites = {event.site for event in read_events(folder.events_path, kinds={EventKind.SITE_JOINED, EventKind.SITE_REFUSED}) if event.site}
    for number in folder.finished_rounds():
        sites |= {site.site for site in folder.read_record(number).sites} if number > 0 else set()
    sites |= set() if evidence.test is None else set(evidence.test.sites)
    return make_card(folder, evidence, pseudonyms=pseudonyms_of(sites, folder.path if coordinator is None else coordinator.path))


def documents_of(card: ModelCard) -> dict[str, bytes]:
    """Return the two files of a card."""
    return {CARD_FILE: card.model_dump_json(indent=1).encode() + b"\n", CARD_TEXT: card_markdown(card).encode()}


def publish_card(folder: RunFolder, kind: Literal["best", "last"]) -> ModelCard:
    """Make the card of a finished run's model anew, put it beside the model and write the manifest again.

    What is signed anew is what the run has made: files that are not those of their manifest, and weights that the run's result does not
    name, are refused.

    Raises:
        ModelError: the run has no such model yet, it cannot be read, or it is not the run's.
        TrustError: a file was changed since it was published, or the model is signed and the coordinator's key is not at hand.
    """
    place, result = folder.model_path(kind), folder.read_result()
    if result is None or not place.is_dir():
        raise ModelError(
            "this run has not published a model yet",
            where=place,
            got="a run without an end",
            expected="a finished run",
            remedy="wait for its end, or resume it",
        )
    # An old card may be missing, or half of a new one be there after a crash.
    origin, signer = check_manifest(place, ignore=(CARD_FILE, CARD_TEXT)), signer_for_run(folder.path)
    weights: Weights = load_weights(place)
    is_best = weights.sha256 == result.best_sha256
    if not is_best and weights.sha256 != result.last_sha256:
        raise _foreign(place, weights.sha256, result.best_sha256 if kind == "best" else result.last_sha256)
    if signer is None and origin.is_signed:
        raise _would_lose_signature(place)
    evidence = ModelEvidence(
        kind=kind,
        weights=weights,
        round=result.best_round if is_best else result.rounds,
        validation=result.validation if is_best else result.last,
        test=result.test if is_best else None,
        subsets=result.subsets if is_best else {},
        privacy=result.privacy,
    )
    card = describe_model(folder, evidence)
    for name, content in documents_of(card).items():
        write_atomic(place / name, content)
    write_manifest(place, model_digest=card.model_digest, run=folder.run, round=evidence.round, signer=signer)
    return card


def _foreign(place: Path, got: str, expected: str) -> ModelError:
    return ModelError(
        "these weights are not what the run made",
        where=place,
        got=f"SHA-256 {got[:12]}",
        expected=f"SHA-256 {expected[:12]} (result.json)",
        remedy="restore the folder from a copy",
    )


def _would_lose_signature(place: Path) -> TrustError:
    return TrustError(
        "the model would lose its signature",
        where=place,
        got="a signed model, and no key to sign it again",
        expected="the coordinator's folder where the run was submitted to it",
        remedy="make the card on the coordinator's machine, or read the one that is there without --rewrite",
    )
