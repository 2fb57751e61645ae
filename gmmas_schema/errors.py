"""The error tree, and the reason codes that may cross a hospital's boundary.

    GmmasError (a ValueError)
    |-- ConfigError      a configuration file or option
    |-- DataError        a scan, a label table, a cohort folder
    |-- TrustError       a key, a certificate, an enrolment
    |-- ModelError       weights or a model definition
    |-- ProtocolError    a message that does not fit the protocol
    |-- PolicyError      a request that the hospital's policy refuses
    `-- FederationError  a round, a quorum, a deployed process

An error says what failed, where, what was found, what was expected and the remedy. Only `code` ever leaves a hospital.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial

from gmmas_schema.printable import printable


class ReasonCode(StrEnum):
    """The only description of a failure that leaves a site; the value is what travels."""

    CONFIG = "E_CONFIG"
    DATA = "E_DATA"
    DATA_UNREADABLE = "E_DATA_UNREADABLE"
    DATA_GRID = "E_DATA_GRID"
    DATA_NOT_FINITE = "E_DATA_NOT_FINITE"
    DATA_EMPTY = "E_DATA_EMPTY"
    DATA_LABEL = "E_DATA_LABEL"
    DATA_TABLE = "E_DATA_TABLE"
    TRUST = "E_TRUST"
    MODEL = "E_MODEL"
    MODEL_DEFINITION = "E_MODEL_DEFINITION"
    PROTOCOL = "E_PROTOCOL"
    PROTOCOL_VERSION = "E_PROTOCOL_VERSION"
    REPLY_REFUSED = "E_REPLY_REFUSED"
    MODEL_NEEDED = "E_MODEL_NEEDED"
    QUORUM = "E_QUORUM"
    DEADLINE = "E_DEADLINE"
    TRAINER = "E_TRAINER"
    TRAINER_UNREACHABLE = "E_TRAINER_UNREACHABLE"
    PAUSED = "E_PAUSED"
    POLICY_TASK = "E_POLICY_TASK"
    POLICY_HOURS = "E_POLICY_HOURS"
    POLICY_ROUNDS = "E_POLICY_ROUNDS"
    POLICY_COHORT = "E_POLICY_COHORT"
    POLICY_MODEL = "E_POLICY_MODEL"
    POLICY_PRIVACY = "E_POLICY_PRIVACY"
    AUDIT_LOG = "E_AUDIT_LOG"
    CANCELLED = "E_CANCELLED"
    OUT_OF_MEMORY = "E_OUT_OF_MEMORY"
    DISK = "E_DISK"
    PROCESS = "E_PROCESS"
    INTERNAL = "E_INTERNAL"


class GmmasError(ValueError):
    """Base of all errors a user can cause or mend."""

    default_code = ReasonCode.INTERNAL

    def __init__(
        self,
        what: str,
        *,
        where: object = "",
        got: object = "",
        expected: object = "",
        remedy: str = "",
        code: ReasonCode | None = None,
    ) -> None:
        self.what, self.where, self.got, self.expected, self.remedy = what, str(where), str(got), str(expected), remedy
        self.code = code or self.default_code
        super().__init__(self.explain())

    def __reduce__(self) -> tuple[Callable[[], "GmmasError"], tuple[()]]:
        """Pickle by fields, so that an error arrives whole from a worker process."""
        again = partial(type(self), self.what, where=self.where, got=self.got, expected=self.expected, remedy=self.remedy, code=self.code)
        return again, ()

    def brief(self) -> str:
        """Return what, got and expected as one line of at most 300 printable characters."""
        parts = [self.what, f"got {self.got}" if self.got else "", f"expected {self.expected}" if self.expected else ""]
        text = " ".join("; ".join(part for part in parts if part).split())
        return printable(text)[:300]

    def explain(self) -> str:
        """Return the message as lines: what, then where, got, expected and remedy as far as they are known."""
        rows = (("where", self.where), ("got", self.got), ("expected", self.expected), ("remedy", self.remedy))
        return "\n".join([f"{self.what} [{self.code}]", *(f"  {name + ':':<10}{text}" for name, text in rows if text)])


class ConfigError(GmmasError):
    """A configuration file or a command's option is wrong."""

    default_code = ReasonCode.CONFIG


class DataError(GmmasError):
    """A scan, a label table or a cohort folder is wrong."""

    default_code = ReasonCode.DATA


class TrustError(GmmasError):
    """A key, a certificate or an enrolment is missing or wrong."""

    default_code = ReasonCode.TRUST


class ModelError(GmmasError):
    """Weights do not fit the model definition, or cannot be read."""

    default_code = ReasonCode.MODEL


class ProtocolError(GmmasError):
    """A message does not fit the protocol."""

    default_code = ReasonCode.PROTOCOL


class PolicyError(GmmasError):
    """The hospital's policy refuses a request."""

    default_code = ReasonCode.POLICY_TASK


class FederationError(GmmasError):
    """A round, a quorum or a deployed process failed."""

    default_code = ReasonCode.PROCESS
