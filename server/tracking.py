"""MLflow: one run per federated run, metrics per round and site, every site's training and validation, registered versions.

gmmas_workflows.tracking says how runs, steps and models are written; here is what a coordinator's round adds: replies, bytes, memory.
The validation in the record of round k is of the model the sites received, the one round k - 1 made, and is step k - 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmmas_schema.federation import TrackingConfig
from gmmas_workflows.run_metrics import mean_losses, score_metrics, trained_metrics
from gmmas_workflows.tracking import RunTracker
from server.card_text import card_summary
from server.checkpoint import CONFIGURATION
from server.model_card import read_card
from server.records import Outcome, RoundRecord


class MlflowTracker(RunTracker[RoundRecord]):
    """Writes a federated run to MLflow (server.records.Tracker).

    Args:
        config: store, experiment and registered model. Without a store's URI: `mlflow.db` and `mlflow-artifacts/` in the folder.
        folder: the federated run's folder.
    """

    def __init__(self, config: TrackingConfig, folder: Path) -> None:
        super().__init__(config, folder, round_type=RoundRecord, round_metrics=round_metrics, configuration=CONFIGURATION, kind="federated")

    def start(self, resolved: Mapping[str, Any]) -> None:
        """Open the MLflow run, with tags by which runs of other strategies, wires and privacy are found."""
        self._tags |= configuration_tags(resolved)
        super().start(resolved)

    def _describe(self, weights_folder: Path) -> str:
        card = read_card(weights_folder)
        return "" if card is None else card_summary(card)

    def _write_round(self, record: RoundRecord) -> None:
        """Record a round, and as tags `refused/<site>` the last reason why a reply of the site was refused."""
        if record.round not in self._logged:
            for site in record.sites:
                if site.outcome is Outcome.REFUSED:
                    self._connected().set_tag(self._run, f"refused/{site.site}", f"round {record.round}: {site.code} {site.reason}")
            if record.personalised is not None:
                metrics = score_metrics(record.personalised, prefix="personalised")
                self._write_metrics(metrics, step=record.personalised.model_round, time_s=record.started_at + record.seconds)
        super()._write_round(record)


def configuration_tags(resolved: Mapping[str, Any]) -> dict[str, str]:
    """Return what tells one kind of federated run from another, from its resolved configuration.

    `gmmas.strategy` and `gmmas.server_step` are kinds, `gmmas.wire` is `<down>/<up>`, `gmmas.privacy` the budget or `none`, `gmmas.secure`
    `on` or `off`, `gmmas.model` the network's channels.
    """
    parts = {key: resolved.get(key) or {} for key in ("strategy", "server_step", "wire", "privacy", "model")}
    privacy = f"epsilon {parts['privacy']['epsilon']:g}" if parts["privacy"] else "none"
    channels = (parts["model"].get("network") or {}).get("channels") or ()
    return {
        "gmmas.strategy": str(parts["strategy"].get("kind", "")),
        "gmmas.server_step": str(parts["server_step"].get("kind", "")),
        "gmmas.wire": f"{parts['wire'].get('down', '')}/{parts['wire'].get('up', '')}",
        "gmmas.privacy": privacy,
        "gmmas.secure": "on" if resolved.get("secure") else "off",
        "gmmas.model": "-".join(map(str, channels)),
    }


def round_metrics(record: RoundRecord) -> dict[str, float]:
    """Return what belongs to the round itself: replies, bytes, memory; per site also seconds and training losses."""
    metrics: dict[str, float] = {
        "attempt": record.attempt,
        "replies": sum(site.outcome is Outcome.ACCEPTED for site in record.sites),
        "bytes_down": record.bytes_down,
        "bytes_up": record.bytes_up,
        "cpu_seconds": record.cpu_seconds,
        "peak_memory_mib": record.peak_memory_mib,
    } | {f"ready_{target}": ramp for target, ramp in record.ready.items()}
    if record.privacy is not None:
        metrics |= {"privacy/epsilon": record.privacy.epsilon, "privacy/releases": record.privacy.releases}
    metrics |= mean_losses((site.losses, site.labelled) for site in record.sites if site.outcome is Outcome.ACCEPTED)
    for site in record.sites:
        own: dict[str, float] = {
            "accepted": site.outcome is Outcome.ACCEPTED,
            "refused": site.outcome is Outcome.REFUSED,
            "bytes_down": site.bytes_down,
            "bytes_up": site.bytes_up,
            "round_trip_s": site.round_trip_s,
        }
        if site.outcome is Outcome.ACCEPTED:
            own |= trained_metrics(site)
        if site.clipped:
            own["clipped"] = min(site.clipped.values())
        if site.cosine is not None:
            own["cosine"] = site.cosine
        metrics |= {f"site/{site.site}/{name}": value for name, value in own.items()}
    return metrics
