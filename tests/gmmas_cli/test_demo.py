"""What the demo shows and what it may delete; the demo itself runs in tests/integration, in small."""

from pathlib import Path

import pytest

from gmmas_cli.demo import Scale, configure_demo, delete_demo, demo
from gmmas_cli.demo_deployment import UNSEEN, DemoFolder, prepare_deployment, public_key, training_sites
from gmmas_cli.demo_report import DemoSummary, write_summary
from gmmas_runtime.keys import load_public_key
from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import Modality, Region, Split
from server.deployment import init_coordinator

CONFIGS = Path(__file__).resolve().parents[2] / "site_configs"

EVALUATION = Evaluation(split=Split.TEST, cases=16, dice={Region.WT: Interval(value=0.81, low=0.7, high=0.9, n=16)})


def test_fresh_deletes_a_demo(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "demo")
    (folder.path / "cohorts" / "north").mkdir(parents=True)
    delete_demo(folder)
    assert not folder.path.exists()


def test_fresh_refuses_to_delete_anything_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="more than a demo"):
        delete_demo(DemoFolder(tmp_path))
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("scale", ["demo", "demo-full"])
def test_configurations_of_the_demo_are_valid_and_agree(scale: str) -> None:
    spec = PhantomSpec.from_yaml(CONFIGS / f"phantom-{scale}.yaml")
    config = FederationConfig.from_yaml(CONFIGS / f"federation-{scale}.yaml")
    assert {site.name for site in spec.sites} == {"north", "south", "east", "west", UNSEEN}
    assert config.quorum.sites == len(training_sites(spec))


def test_a_processor_without_bf16_is_given_fewer_rounds_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(*, native: bool, scale: Scale = Scale.QUICK, told: int | None = None) -> int:
        monkeypatch.setattr("gmmas_model.precision.native_bf16", lambda _device: native)
        return configure_demo(scale, told).rounds

    assert rounds(native=True) > rounds(native=False)
    assert rounds(native=False, told=5) == 5
    assert rounds(native=False, scale=Scale.FULL) == rounds(native=True, scale=Scale.FULL)


def test_deployment_is_prepared_once_with_what_each_hospital_has(tmp_path: Path) -> None:
    spec, folder = PhantomSpec.from_yaml(CONFIGS / "phantom-demo.yaml"), DemoFolder(tmp_path)
    prepare_deployment(folder, spec)
    south = SiteConfig.from_yaml(folder.site_yaml("south"))
    assert Modality.T1CE not in south.data.modalities
    load_public_key(public_key(folder, "south"))
    assert not folder.site(UNSEEN).exists()
    before = folder.site_yaml("south").read_bytes()
    prepare_deployment(folder, spec)
    assert folder.site_yaml("south").read_bytes() == before


def _write_summary(folder: DemoFolder, config: FederationConfig) -> None:
    folder.path.mkdir(parents=True)
    summary = DemoSummary(
        software="0",
        wall_seconds={"total": 700.0},
        rounds=32,
        best_round=9,
        sites={"north": EVALUATION},
        unseen=EVALUATION,
        bytes_down=0,
        bytes_up=0,
        site_bytes={},
        peak_memory_mib={},
        missing_replies=0,
        federation=config,
    )
    write_summary(folder, summary)


def test_a_finished_demo_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_summary(DemoFolder(tmp_path / "demo"), configure_demo(Scale.QUICK))
    demo(out=tmp_path / "demo")
    shown = capsys.readouterr().out
    assert "round 9 of 32" in shown
    assert "700 s" in shown


def test_a_finished_demo_of_another_configuration_is_named_not_overwritten(tmp_path: Path) -> None:
    _write_summary(DemoFolder(tmp_path / "demo"), configure_demo(Scale.QUICK))
    with pytest.raises(ConfigError, match=r"rounds: \d+ -> 3"):
        demo(out=tmp_path / "demo", rounds=3)


def test_the_platform_opens_on_a_patient_of_the_unseen_hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = DemoFolder(tmp_path / "demo")
    _write_summary(folder, configure_demo(Scale.QUICK))
    init_coordinator(folder.coordinator, port=9092)
    for name in ("PH-0002", "PH-0001"):
        (folder.cohorts / UNSEEN / name).mkdir(parents=True)
    opened: dict[str, object] = {}
    monkeypatch.setattr("gmmas_cli.portal.serve_portal", lambda _console, path, **given: opened.update(given, folder=path))
    demo(out=folder.path, portal=True)
    assert opened["folder"] == folder.path / "portal"
    assert opened["sample"] == folder.cohorts / UNSEEN / "PH-0001"
    assert opened["model"] == str(folder.run / "models" / "best")
    assert opened["authority"] == str(folder.coordinator / "authority" / "authority.pem")
    (folder.path / "portal").mkdir()
    delete_demo(folder)
    assert not folder.path.exists()
