"""How many patients a temperature needs: what fitting a marker's temperature costs or gains, against leaving it at 1.

    python benchmarks/calibration_patients.py

A marker with AUC of about .7 or .9 answers with logits that are right at temperature T. A temperature is fitted to n patients, with and
without the prior of gmmas_model.temperature_fit, and judged on a large population. The figure is the excess over the best temperature
in nats per patient: mean, and 95th percentile over draws of the n patients. A few seconds on one core; draws follow from the seed.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from gmmas_model.temperature_fit import PRIOR, fit_temperature
from gmmas_schema.calibration import TEMPERATURES

POPULATION = 20_000
SPREADS = {"AUC .7": 1.0, "AUC .9": 2.0}
"""Standard deviation of the right logits."""
TRUE_TEMPERATURES = (0.5, 1.0, 2.0, 4.0)
PATIENTS = (5, 10, 15, 20, 40)


def nats(logit_N: np.ndarray, truth_N: np.ndarray, temperatures_T: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood nll_NT."""
    wrong_N = np.where(truth_N, -logit_N, logit_N)
    nll_NT: np.ndarray = np.logaddexp(0, wrong_N[:, None] / temperatures_T)
    return nll_NT


def measure(spread: float, true_temperature: float, patients: int, *, draws: int, seed: int) -> dict[str, float]:
    """Return the excess in nats of: no fit, a fit, a fit with the prior."""
    rng = np.random.default_rng((seed, round(10 * spread), round(10 * true_temperature), patients))
    right_N = rng.normal(0, spread, POPULATION)
    truth_N = rng.random(POPULATION) < 1 / (1 + np.exp(-right_N))
    nll_NT = nats(right_N * true_temperature, truth_N, np.array(TEMPERATURES))
    risk_T, log_T = nll_NT.mean(0), np.log(TEMPERATURES)
    excess: dict[str, float] = {}
    for name, prior in (("fitted", 0.0), ("fitted_with_prior", PRIOR)):
        chosen = rng.integers(0, POPULATION, (draws, patients))
        found = [fit_temperature(nll_NT[rows].sum(0).tolist(), TEMPERATURES, prior=prior) for rows in chosen]
        values = np.interp(np.log(found), log_T, risk_T) - risk_T.min()
        excess |= {f"{name}_mean": float(values.mean()), f"{name}_95th": float(np.quantile(values, 0.95))}
    return {"left_at_1": float(np.interp(0, log_T, risk_T) - risk_T.min())} | excess


def main() -> None:
    """Measure every case, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "calibration_patients.json")
    options = parser.parse_args()
    rows = [
        {"marker": name, "true_temperature": true_temperature, "patients": patients}
        | measure(spread, true_temperature, patients, draws=options.draws, seed=options.seed)
        for name, spread in SPREADS.items()
        for true_temperature in TRUE_TEMPERATURES
        for patients in PATIENTS
    ]
    keys = [key for key in rows[0] if key not in {"marker", "true_temperature"}]
    mean = [{key: float(np.mean([row[key] for row in rows if row["patients"] == patients])) for key in keys} for patients in PATIENTS]
    print("excess in nats, mean over cases of", ", ".join(f"T = {t:g}" for t in TRUE_TEMPERATURES))
    for row in mean:
        print("  ".join(f"{key} {value:.3f}" if key != "patients" else f"n = {value:2.0f}" for key, value in row.items()))
    result = {"seed": options.seed, "draws": options.draws, "prior": PRIOR, "mean": mean, "cases": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
