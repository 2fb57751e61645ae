"""The coordinator's part of calibration: asks the sites for sums about a finished model, and makes a calibration of what they add up to.

Two questions on the calibration split: the likelihood over a grid of temperatures, from which the temperatures follow, and then the
reliability at these, from which the markers' thresholds follow. What a reader sees of 1p/19q depends on two temperatures at once, so the
second question cannot be part of the first. The test split is asked with the test of the best model and chooses nothing. A site that has
no such patients, or does not answer, is not counted.
"""

from collections.abc import Callable, Iterable

from gmmas_model.temperature_fit import calibrate_weights, merge_statistics, with_test
from gmmas_schema.calibration import Calibration, CalibrationPlan, CalibrationQuery, CalibrationStatistics
from gmmas_schema.vocabulary import Split
from server.records import SiteRecord

Ask = Callable[[Split, CalibrationQuery], tuple[SiteRecord, ...]]
"""Evaluates one model at the sites on a split, with a query for sums."""


def calibrate_model(ask: Ask, *, weights_sha256: str, plan: CalibrationPlan) -> tuple[Calibration, tuple[SiteRecord, ...]]:
    """Return the calibration of one model, and what the asking cost.

    Args:
        ask: puts a question about this model to the sites.
        weights_sha256: of the model.
        plan: fewest patients and target.
    """
    ledger: list[SiteRecord] = []

    def sums(split: Split, query: CalibrationQuery) -> list[CalibrationStatistics]:
        records = ask(split, query)
        ledger.extend(without_sums(records))
        return statistics_of(records)

    return calibrate_weights(sums, weights_sha256=weights_sha256, plan=plan), tuple(ledger)


def query_for_test(calibration: Calibration | None) -> CalibrationQuery | None:
    """Return what is asked for beside the test of a calibrated model."""
    return None if calibration is None else CalibrationQuery(temperatures=calibration.temperatures)


def add_test(calibration: Calibration | None, tests: Iterable[SiteRecord]) -> Calibration | None:
    """Return the calibration with its reliability on the sites' test patients."""
    return None if calibration is None else with_test(calibration, merge_statistics(statistics_of(tests))[0])


def statistics_of(records: Iterable[SiteRecord]) -> list[CalibrationStatistics]:
    """Return the sums of the sites that sent some."""
    return [record.calibration for record in records if record.calibration is not None]


def without_sums(records: Iterable[SiteRecord]) -> tuple[SiteRecord, ...]:
    """Return the records to keep: once the sites' sums are added, no single site's is needed; figures by subset are kept once, merged."""
    return tuple(record.model_copy(update={"calibration": None, "subsets": {}}) for record in records)


def calibration_detail(calibration: Calibration | None) -> dict[str, object]:
    """Return what displays show of a calibration: per head the temperature and the calibration error before and after."""
    return {
        str(head): {"temperature": found.temperature, "ece_before": found.reliability.before.ece, "ece_after": found.reliability.after.ece}
        for head, found in (calibration.heads.items() if calibration is not None else ())
    }
