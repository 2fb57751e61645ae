"""Who may take part in the attempts at a secure round, and how many must stay: one company a round, once masked updates have left.

A hospital lets its update of a round go for one list of invited sites and one threshold, and refuses every other
(strategies.secure.ledger). So both are chosen anew with each attempt until one comes to the masks, and kept from then on, on the disk as
well: a coordinator that was killed goes on with the same. Sites that joined since wait for the next round.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError, FederationError, ReasonCode
from gmmas_schema.federation import FederationConfig
from gmmas_schema.secure import choose_threshold
from server.membership import Member
from strategies.secure.noisy_sum import NoisySum

COMPANY_FILE: Final = "secure-round.json"


class Company(FrozenModel):
    """The sites of a round (contents of secure-round.json, of the round that last came to the masks).

    Attributes:
        round: 1-based.
        invited: sites that may take part, in the order of their names.
        threshold: sites that must answer to the end.
        asked: sites have been asked to open a sum of the round: what they withhold from now on may be for that.
    """

    round: int = Field(ge=1)
    invited: tuple[str, ...]
    threshold: int
    asked: bool = False


class Companies:
    """Chooses the company of each attempt of a run.

    Args:
        path: the run's folder.
        config: of the run; one without `secure` has no companies.
    """

    def __init__(self, path: Path, config: FederationConfig) -> None:
        self._file, self._config = path / COMPANY_FILE, config
        self._kept = self._read()

    def kept(self, number: int) -> Company | None:
        """Return the company of a round whose masked updates have left; None where there is a choice."""
        return self._kept if self._kept is not None and self._kept.round == number else None

    def wanted(self, number: int) -> tuple[int, tuple[str, ...] | None]:
        """Return for how many sites an attempt at a round is to wait, and of which names; None for any.

        They are waited for as long as the sites of a run are. Then the attempt goes on with those that are there, or fails.
        """
        if (kept := self.kept(number)) is not None:
            return self._needed(kept.threshold), kept.invited
        secure = self._config.secure
        return (0 if secure is None or secure.threshold is None else self._needed(secure.threshold)), None

    def choose(self, members: Iterable[Member], number: int, *, tensors: Mapping[str, NDArray[np.float32]]) -> Company:
        """Return the company of an attempt.

        Args:
            members: who is there.
            number: of the round.
            tensors: the model, for the grid of a private sum.

        Raises:
            FederationError: too few or too many sites for the settings, or too few of those that the round began with (code QUORUM):
                another attempt may find others.
            ConfigError: the settings do not fit even the sites that the run asks for.
        """
        present = sorted(member.site for member in members)
        kept = self.kept(number)
        if kept is None:
            return self._choose(present, number, elements=sum(value.size for value in tensors.values()))
        if len(here := [site for site in present if site in kept.invited]) < (needed := self._needed(kept.threshold)):
            raise FederationError(
                "too few of the sites with which the round began",
                where=f"round {number}",
                got=f"{len(here)} ({', '.join(here) or 'none'})",
                expected=f"at least {needed} of {', '.join(kept.invited)}: their masked updates have left for these, and for nobody else",
                remedy="bring them back and resume the run; sites that have joined since take part from the next round on",
                code=ReasonCode.QUORUM,
            )
        return kept

    def note_masking(self, company: Company) -> None:
        """Keep the company of an attempt, before its sites are asked for their masked updates."""
        if self.kept(company.round) is None:
            self._write(company)

    def note_opening(self, number: int) -> None:
        """Note that sites are about to be asked to open a sum of a round, after note_masking()."""
        kept = self.kept(number)
        assert kept is not None, "nothing is opened before it is masked"
        if not kept.asked:
            self._write(kept.model_copy(update={"asked": True}))

    def _needed(self, threshold: int) -> int:
        return max(threshold, self._config.quorum.replies)

    def _choose(self, present: list[str], number: int, *, elements: int) -> Company:
        secure, quorum = self._config.secure, self._config.quorum
        assert secure is not None, "the run aggregates securely"
        try:
            secure.check_sites(len(present), private=self._config.privacy is not None)
            self._check_noise(len(present), elements)
        except ConfigError as error:
            # With the sites that the configuration itself asks for, no other attempt will do better.
            if len(present) <= quorum.sites:
                raise
            raise _unfit(number, present, error.got) from error
        except ValueError as error:
            raise _unfit(number, present, str(error)) from error
        return Company(round=number, invited=tuple(present), threshold=choose_threshold(len(present), threshold=secure.threshold))

    def _check_noise(self, sites: int, elements: int) -> None:
        """Refuse a grid too coarse for the noise of so many sites, as the sites would."""
        secure, privacy = self._config.secure, self._config.privacy
        if secure is not None and privacy is not None:
            fewest = secure.minimum_holders - privacy.colluders
            NoisySum(sites=sites, ring_bits=secure.ring_bits, elements=elements, fewest=fewest, privacy=privacy)

    def _read(self) -> Company | None:
        if not self._file.exists():
            return None
        try:
            return Company.model_validate_json(self._file.read_bytes())
        except ValueError as error:
            raise ConfigError(
                "the record of a secure round cannot be read",
                where=self._file,
                got=type(error).__name__,
                expected="the file as the coordinator wrote it",
                remedy="restore it from a copy; without it, remove it: hospitals that have masked for other sites refuse the round",
            ) from error

    def _write(self, company: Company) -> None:
        write_atomic(self._file, company.model_dump_json().encode() + b"\n")
        self._kept = company


def opened_elsewhere(number: int, groups: Iterable[str]) -> FederationError:
    """Return the error for sums that the sites withhold although this run has asked for none of them: nothing it does would change that.

    Args:
        number: of the round.
        groups: that are withheld, all that some site holds.
    """
    return FederationError(
        "the hospitals have opened this round before, and open no other sum of it",
        where=f"round {number}",
        got=f"every part withheld ({', '.join(groups)}), and no word in the run's folder that one was asked for",
        expected="a round that nobody has opened",
        remedy="start a new run in a new folder: this one has the identifier of another, or is an older copy of itself",
        code=ReasonCode.TRUST,
    )


def _unfit(number: int, present: list[str], why: Any) -> FederationError:
    return FederationError(
        "secure aggregation is not for so many sites",
        where=f"round {number}",
        got=f"{len(present)} ({', '.join(present)}): {why}",
        expected="sites that fit the block `secure` of the run's configuration",
        remedy="the round is tried again; bring missing sites back, or leave out those that came since. In a new run set secure.threshold"
        " to null, for two thirds of whoever takes part, and secure.ring_bits to 32 or 64",
        code=ReasonCode.QUORUM,
    )
