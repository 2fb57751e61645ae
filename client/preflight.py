"""Before a node starts: are its files in order, is the coordinator there, is it the right one, does it know this site?

The last question is put to the coordinator without changing anything: an activation with a heartbeat interval of 0 is refused for the
interval if the key is enrolled, and for the key if it is not. Uses internal API of flwr 1.41 (tests/client/test_preflight.py).
"""

import logging
import time
from typing import Final

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from gmmas_runtime.keys import load_certificate, load_node_key
from gmmas_runtime.probe import check_health, port_is_free
from gmmas_runtime.sealed_files import KeyRing
from gmmas_schema.errors import ConfigError, DataError, FederationError, GmmasError, TrustError
from gmmas_schema.site import SiteConfig

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0
IMPOSSIBLE_HEARTBEAT_S: Final = 0


def check_port(config: SiteConfig) -> None:
    """Check that the SuperNode can listen on its loopback port.

    Raises:
        ConfigError: the port is taken.
    """
    if not port_is_free(config.node.runtime_port):
        raise ConfigError(
            "the SuperNode cannot listen on its loopback port",
            where="node.runtime_port in site.yaml",
            got=f"port {config.node.runtime_port} is taken",
            expected="a free port",
            remedy="choose another port; every node of one machine needs its own",
        )


def check_files(config: SiteConfig) -> None:
    """Check the files site.yaml names, as far as that is quick; the scans are checked by the trainer.

    Raises:
        TrustError: the node key, the coordinator's certificate or the key of the encryption is missing or wrong.
        DataError: the cohort's folder or the table of labels is missing.
    """
    load_node_key(config.node.private_key)
    load_certificate(config.coordinator.root_certificate)
    if config.encryption is not None:
        KeyRing.read(config.encryption.key_file)
    if not config.data.root.is_dir():
        raise DataError(
            "the cohort's folder is missing",
            where=config.data.root,
            got="no such folder",
            expected="a folder of scans",
            remedy="mend data.root in site.yaml, or mount the disk",
        )
    if config.data.labels is not None and not config.data.labels.is_file():
        raise DataError(
            "the table of labels is missing",
            where=config.data.labels,
            got="no such file",
            expected="a CSV with columns patient_id, idh, codeletion",
            remedy="mend data.labels in site.yaml; remove the key if the site has no such table",
        )


def check_coordinator(config: SiteConfig, *, wait_s: float = 0.0) -> None:
    """Check that the coordinator answers, that it is the one the certificate vouches for, and that it knows this site's key.

    Args:
        config: the site.
        wait_s: how long an absent coordinator is waited for.

    Raises:
        FederationError: nobody answers, or not a coordinator of this software.
        TrustError: the wrong certificate, an unknown key, or clocks that differ.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            check_health(config.coordinator.address, authority_certificate=config.coordinator.root_certificate)
            break
        except FederationError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_S)
    try:
        _ask_for_enrolment(config)
    except httpx.HTTPStatusError as error:
        raise _explain_refusal(error, config) from error
    except httpx.TransportError as error:
        raise FederationError(
            "the coordinator went away",
            where=config.coordinator.address,
            got=type(error).__name__,
            expected="an answer",
            remedy="try again",
        ) from error


def explain_supernode_exit(exit_code: int, log_tail: str, config: SiteConfig) -> GmmasError | None:
    """Return the error for which a SuperNode that ended need not be started again, or None if it may come back.

    Args:
        exit_code: of the process; Flower ends with 1 for every fault and writes the kind of fault into the log.
        log_tail: the end of its log.
        config: the site.
    """
    if exit_code == 0 or not any(sign in log_tail for sign in ("Exit Code:", "API failed to start")):
        return None
    # What Flower writes does not tell an unknown key from a node that is still counted as online: the coordinator does.
    try:
        check_port(config)
        check_files(config)
        check_coordinator(config)
    except FederationError as error:
        logger.info("the SuperNode ended, and its coordinator is away: %s", error)
    except GmmasError as error:
        return error
    return None


def _ask_for_enrolment(config: SiteConfig) -> None:
    """Send the activation that cannot succeed; returns if the coordinator knows the key, else raises what httpx raised."""
    key = load_node_key(config.node.private_key)
    with FleetHttpClient.from_server_address(
        config.coordinator.address,
        False,
        config.coordinator.root_certificate.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())],
    ) as client:
        try:
            client.ActivateNode(ActivateNodeRequest(public_key=_public_bytes(key), heartbeat_interval=IMPOSSIBLE_HEARTBEAT_S))
        except httpx.HTTPStatusError as error:
            reason = FlowerError.from_json(error.response.text)
            if reason is None or reason.code != ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
                raise


def _public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public key as Flower sends it."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _explain_refusal(error: httpx.HTTPStatusError, config: SiteConfig) -> GmmasError:
    reason = FlowerError.from_json(error.response.text)
    if reason is not None and reason.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return TrustError(
            "the coordinator does not know this site's key",
            where=config.coordinator.address,
            got=f"the key {config.node.private_key} is not enrolled, or was revoked",
            expected="an enrolled key",
            remedy=f"send {config.node.private_key}.enrolment.json to the coordinator, who runs `gmmas server enrol` on it; "
            "a revoked key cannot come back: make a new one with `gmmas site new-key`",
        )
    if error.response.status_code == httpx.codes.UNAUTHORIZED:
        return TrustError(
            "the coordinator does not accept this site's signature",
            where=config.coordinator.address,
            got="401 unauthorised",
            expected="a signature no more than 5 s ahead and 305 s behind the coordinator's clock",
            remedy="set this machine's clock (NTP)",
        )
    return FederationError(
        "the coordinator answered something else",
        where=config.coordinator.address,
        got=f"HTTP status {error.response.status_code}",
        expected="a gmmas-fed coordinator",
        remedy="check the address; both sides need the same release of Flower",
    )
