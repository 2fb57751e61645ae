"""What a private run has released, in `privacy.json` of its folder.

A release is booked, and on the disk, before its noise is drawn. So a run that is killed in between pays for a release that nobody saw, and
never the other way round: a round that is begun again, because its checkpoint was not there yet or was lost, draws new noise, and both
draws count, since both may have been seen. The file therefore lies beside the rounds and not in them.
"""

from pathlib import Path
from typing import Final

from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError
from gmmas_schema.privacy import PrivacyConfig, PrivacySpent
from strategies.accountant import affordable_releases, epsilon_of

LEDGER_FILE: Final = "privacy.json"


class Releases(FrozenModel):
    """Contents of privacy.json.

    Attributes:
        rounds: the round of every noisy sum that was booked, in order; a repeated round is there twice.
    """

    rounds: tuple[int, ...] = ()


class PrivacyLedger:
    """Books the releases of one run.

    Args:
        path: the file; made with the first release.
        config: noise and budget.
        once: the sites open one noisy sum of a round, whoever asks how often, so a round that is tried again is not another release.
    """

    def __init__(self, path: Path, config: PrivacyConfig, *, once: bool = False) -> None:
        self._path, self._config, self._once = path, config, once
        self.affordable = affordable_releases(noise_multiplier=config.noise_multiplier, delta=config.delta, epsilon=config.epsilon)
        self._booked = self._read()

    def plan(self, rounds: int) -> int:
        """Return how many rounds of `rounds` the budget allows from the start of the run.

        Raises:
            ConfigError: not one; or the accountant is not installed, which tells what has been spent.
        """
        one = epsilon_of(1, noise_multiplier=self._config.noise_multiplier, delta=self._config.delta)
        if self.affordable == 0:
            raise ConfigError(
                "the privacy budget does not allow a single round",
                where="privacy.epsilon",
                got=f"{self._config.epsilon:g}",
                expected=f"at least {one:.4g}, which one round costs at delta {self._config.delta:g}",
                remedy="raise privacy.noise_multiplier, or the budget",
            )
        return min(rounds, self.affordable)

    def reconcile(self, finished: int) -> None:
        """Book releases of finished rounds that the file does not know, should somebody have lost it."""
        missing = [number for number in range(1, finished + 1) if number not in self._booked]
        if missing:
            self._write((*self._booked, *missing))

    def affords(self, number: int) -> bool:
        """Return whether the release of this round stays within the budget."""
        return self._is_paid(number) or len(self._booked) < self.affordable

    def book(self, number: int) -> None:
        """Book the release of a round; draw its noise, or have it opened, afterwards."""
        if not self._is_paid(number):
            assert self.affords(number), "a release beyond the budget"
            self._write((*self._booked, number))

    def _is_paid(self, number: int) -> bool:
        return self._once and number in self._booked

    def spent(self) -> PrivacySpent:
        """Return what the releases booked so far cost."""
        config = self._config
        return PrivacySpent(
            epsilon=epsilon_of(len(self._booked), noise_multiplier=config.noise_multiplier, delta=config.delta),
            delta=config.delta,
            noise_multiplier=config.noise_multiplier,
            clip_norm=config.clip_norm,
            releases=len(self._booked),
            affordable=self.affordable,
        )

    def _write(self, rounds: tuple[int, ...]) -> None:
        write_atomic(self._path, Releases(rounds=rounds).model_dump_json().encode() + b"\n")
        self._booked = rounds

    def _read(self) -> tuple[int, ...]:
        if not self._path.exists():
            return ()
        try:
            return Releases.model_validate_json(self._path.read_bytes()).rounds
        except ValueError as error:
            raise ConfigError(
                "the record of what a private run released cannot be read",
                where=self._path,
                got=type(error).__name__,
                expected="the file as the coordinator wrote it",
                remedy="restore it from a copy; without it nobody can say what was spent",
            ) from error
