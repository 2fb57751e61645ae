"""A model card as Markdown, for people: docs of exports, the artefact and, shortened, the description of a version in MLflow."""

from collections.abc import Iterable, Mapping
from typing import Final

from gmmas_schema.model_card import Accuracy, Count, Figure, ModelCard, SplitAccuracy
from gmmas_schema.vocabulary import HEAD_NAMES, MARKER_NAMES, MODALITIES, REGIONS, TASKS, Region, Task
from server.card_limits import NAMES, name_subset

NOT_MEASURED: Final = "not measured"
WITHHELD: Final = "withheld"
LONGEST_DESCRIPTION: Final = 4900
"""MLflow keeps 5000 characters of a version's description."""

_COLUMNS: Final = {f"Dice {r.upper()}": r for r in REGIONS} | {f"AUC {name}": task for task, name in MARKER_NAMES.items()}


def card_markdown(card: ModelCard) -> str:
    """Return the whole card."""
    parts = [_head(card), _use(card), _data(card), _test(card), _calibration(card), _training(card), _cost(card), _ends(card)]
    return "\n".join(line for part in parts for line in part) + "\n"


def card_summary(card: ModelCard) -> str:
    """Return what fits a version's description in MLflow: use, accuracy and limits, at most LONGEST_DESCRIPTION characters."""
    lines = [
        *_head(card),
        *_use(card),
        *_test(card),
        "",
        f"The whole card is the artefact `model-card.md` beside the weights {card.weights[:12]}.",
    ]
    text = "\n".join(lines)
    return text if len(text) <= LONGEST_DESCRIPTION else text[: LONGEST_DESCRIPTION - 2].rpartition("\n")[0] + "\n…"


def _head(card: ModelCard) -> list[str]:
    grid = card.definition.grid
    windows = f", seen in windows of {_times(grid.patch)}" if grid.patch is not None else ""
    rows = {
        "model": f"{card.name}, the {card.kind} of run `{card.training.run}`, made by round {card.round}",
        "made": f"{card.made_at}, with {', '.join(f'{name} {found}' for name, found in card.software.items())}",
        "weights": f"SHA-256 `{card.weights}`",
        "network": f"{card.parameters:,} values".replace(",", " ") + f", definition `{card.model_digest}`",
        "input": f"{_times(grid.shape)} voxels of {grid.spacing_mm:g} mm{windows}; any subset of T1, T1ce, T2 and FLAIR",
        "output": "nested regions WT, TC, ET; " + ", ".join(MARKER_NAMES[t] for t in card.definition.network.tasks if t in MARKER_NAMES),
    }
    return [f"# Model card: {card.name}", "", "**Research only. Not a medical device.**", "", *_pairs(rows)]


def _use(card: ModelCard) -> list[str]:
    return ["", "## Intended use", "", *_list(card.intended_use), "", "Out of scope:", "", *_list(card.out_of_scope)]


def _data(card: ModelCard) -> list[str]:
    data = card.data
    tasks = [task for task in TASKS if task in data.labelled]
    lines = [
        "",
        "## Training data",
        "",
        f"{data.sites} hospitals, under pseudonyms. Cases are training cases; a count is withheld where it, or one",
    ]
    lines += ["that could be computed from it, is below 11.", ""]
    rows = {"all": [_count(data.cases), *(_count(data.labelled[task]) for task in tasks), "", ""]}
    for site, own in data.by_site.items():
        labelled = (_count(own.labelled[task]) if task in own.labelled else "0" for task in tasks)
        rows[site] = [_count(own.cases), *labelled, name_subset(own.modalities), f"{own.rounds} of {own.asked}"]
    lines += _table(["hospital", "cases", *(_task(task) for task in tasks), "sequences", "rounds"], rows)
    lines += ["", "Labelled training cases of the hospitals that hold a sequence:", ""]
    coverage = {NAMES[m]: [_count(data.coverage[m].get(task)) for task in tasks] for m in MODALITIES if m in data.coverage}
    lines += _table(["sequence", *(_task(task) for task in tasks)], coverage)
    lines += ["", "Labels:", "", *_list(f"{_task(task)}: {meaning}" for task, meaning in data.labels.items())]
    lines += ["", "Left out:", "", *(_list(data.exclusions) or ["- nothing: every hospital's answer counted in every round it was asked"])]
    return lines


def _test(card: ModelCard) -> list[str]:
    lines = ["", "## Accuracy on test patients", ""]
    if card.test is None:
        return [*lines, f"{NOT_MEASURED}: only the best model of a run is tested."]
    lines += ["Patients of the same hospitals that took no part in training or choosing; 95 % bootstrap intervals over patients.", ""]
    columns = {name: key for name, key in _COLUMNS.items() if _metric(key) in card.test.mean}
    rows = {"mean": [_mean(card.test, _metric(key)) for key in columns.values()]}
    rows["worst hospital"] = [
        f"{card.test.worst[name]:.2f}" if (name := _metric(key)) in card.test.worst else "" for key in columns.values()
    ]
    rows |= {site: _figures(own, columns.values()) for site, own in card.test.sites.items()}
    lines += _table(["hospital", *columns], rows)
    lines += ["", "By the sequences that patients were shown (means over the hospitals' patients):", ""]
    subsets = {name_subset(s.modalities): [str(s.sites), *_figures(s.accuracy, columns.values())] for s in card.test.subsets}
    return lines + _table(["sequences", "hospitals", *columns], subsets)


def _calibration(card: ModelCard) -> list[str]:
    lines = ["", "## Calibration", ""]
    if not card.calibration:
        return [*lines, f"{NOT_MEASURED}: the probabilities are the network's own."]
    patients = ", ".join(f"{split} {_count(count)}" for split, count in card.calibration_patients.items())
    lines += [f"A temperature per head, fitted to patients of all hospitals ({patients}). ECE: calibration error before and after.", ""]
    rows = {
        _task(head): [
            f"{own.temperature:.2f}" if own.fitted else own.note,
            _count(own.patients),
            _change(own.ece_before, own.ece_after),
            _change(own.test_ece_before, own.test_ece_after),
            _change(own.nll_before, own.nll_after),
            own.abstains,
        ]
        for head, own in card.calibration.items()
    }
    return lines + _table(["head", "temperature", "patients", "ECE, fit", "ECE, test", "log-loss, fit", "left open"], rows)


def _training(card: ModelCard) -> list[str]:
    own = card.training
    privacy = "none"
    if own.privacy is not None:
        p = own.privacy
        privacy = (
            f"epsilon {p.epsilon:.3g} at delta {p.delta:g} per hospital, noise multiplier {p.noise_multiplier:g}, {p.releases} releases"
        )
    rows = {
        "rounds": f"{own.rounds} of {own.planned_rounds} planned, seed {own.seed}",
        "averaging": own.strategy,
        "step": own.server_step,
        "against bad replies": own.robustness,
        "wire": own.wire,
        "secure aggregation": "on" if own.secure else "off",
        "differential privacy": privacy,
        "pseudo-labels": "on" if own.semi_supervised else "off",
        "configuration": f"SHA-256 `{own.configuration}`",
    }
    return ["", "## Training", "", *_pairs(rows)]


def _cost(card: ModelCard) -> list[str]:
    cost = card.cost
    rows = {
        "hours since the run's start": _number(cost.hours),
        "hours of its rounds": _number(cost.round_hours),
        "bytes to hospitals": _number(cost.bytes_down),
        "bytes from hospitals": _number(cost.bytes_up),
        "processor hours at hospitals": _number(cost.site_cpu_hours),
        "processor hours of the coordinator": _number(cost.coordinator_cpu_hours),
        "largest memory of a hospital's trainer": _number(cost.site_peak_memory_mib, " MiB"),
    }
    return ["", "## Cost", "", *_pairs(rows)]


def _ends(card: ModelCard) -> list[str]:
    lines = ["", "## Known limits", "", *_list(card.limits), "", "## Not measured", "", *_list(card.not_measured)]
    sources = (
        "Mitchell et al., Model Cards for Model Reporting, FAT* 2019",
        "Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM) 2024 Update, Radiology: AI 2024",
    )
    return [*lines, "", "## Form", "", *_list(sources)]


def _pairs(rows: Mapping[str, str]) -> list[str]:
    return _table(["", ""], {name: [value] for name, value in rows.items()})


def _table(columns: Iterable[str], rows: Mapping[str, Iterable[str]]) -> list[str]:
    named = list(columns)
    cells = [[name, *values] for name, values in rows.items()]
    return ["| " + " | ".join(row).rstrip() + " |" for row in (named, ["---"] * len(named), *cells)]


def _list(items: Iterable[str]) -> list[str]:
    return [f"- {item}" for item in items]


def _figures(accuracy: Accuracy, keys: Iterable[Region | Task]) -> list[str]:
    own: dict[str, Figure] = {_metric(region): found for region, found in accuracy.dice.items()}
    own |= {_metric(task): found for task, found in accuracy.auc.items()}
    return [_figure(own.get(_metric(key))) for key in keys]


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return NOT_MEASURED
    interval = f" [{figure.low:.2f}, {figure.high:.2f}]" if figure.low is not None and figure.high is not None else ""
    return f"{figure.value:.2f}{interval}" + (f", n {figure.patients}" if figure.patients is not None else "")


def _mean(accuracy: SplitAccuracy, metric: str) -> str:
    return f"{accuracy.mean[metric]:.2f}" if metric in accuracy.mean else NOT_MEASURED


def _metric(key: Region | Task) -> str:
    return f"dice_{key}" if isinstance(key, Region) else f"auc_{key}"


def _task(key: Region | Task) -> str:
    return HEAD_NAMES.get(key, str(key))


def _count(count: Count) -> str:
    return WITHHELD if count is None else str(count)


def _change(before: float | None, after: float | None) -> str:
    if before is None:
        return NOT_MEASURED
    return f"{before:.3f}" if after is None else f"{before:.3f} → {after:.3f}"


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return NOT_MEASURED
    return (f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:g}") + unit


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
