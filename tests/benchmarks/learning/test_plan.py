import pytest

from benchmarks.learning.plan import Arm, Experiment, LearningPlan, merge, nested, pick
from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.groups import REGION_ROWS, groups_sent
from gmmas_schema.messages import SiteReport
from gmmas_schema.vocabulary import Modality, Task
from strategies.weighting import choose_weighting


@pytest.fixture(scope="module")
def plan() -> LearningPlan:
    return LearningPlan.read()


def with_arms(plan: LearningPlan, *arms: Arm) -> LearningPlan:
    return plan.model_copy(update={"arms": (*plan.arms[:1], *arms)})


def test_dotted_keys_and_mappings_meet() -> None:
    changes = {"training.local_steps": 3, "training": {"batch_size": 4}, "model.grid.spacing_mm": 2.0, "rounds": 5}
    assert nested(changes) == {"training": {"local_steps": 3, "batch_size": 4}, "model": {"grid": {"spacing_mm": 2.0}}, "rounds": 5}


def test_changes_reach_into_mappings_but_another_kind_replaces() -> None:
    base = {"strategy": {"kind": "holders", "weights": "sqrt"}, "training": {"a": 1, "b": 2}, "off": None}
    assert merge(base, {"training": {"b": 3}})["training"] == {"a": 1, "b": 3}
    assert merge(base, {"strategy": {"weights": "uniform"}})["strategy"] == {"kind": "holders", "weights": "uniform"}
    assert merge(base, {"strategy": {"kind": "holders"}})["strategy"] == base["strategy"]
    assert merge(base, {"strategy": {"kind": "fedavg"}})["strategy"] == {"kind": "fedavg"}
    assert merge(base, {"off": {"x": 1}, "training": None}) == {"strategy": base["strategy"], "training": None, "off": {"x": 1}}
    assert base["training"] == {"a": 1, "b": 2}


def test_the_held_out_hospitals_never_train(plan) -> None:
    for arm in plan.arms:
        experiment = plan.experiment(arm, plan.seeds[0])
        assert experiment.participants
        assert not set(experiment.participants) & set(plan.held_out)


def test_the_hospitals_lack_what_they_are_named_for(plan) -> None:
    everyone = set(plan.experiment(plan.arm("gmmas"), 1).participants)
    labelled = set(plan.experiment(plan.arm("pooled"), 1).participants)
    assert everyone == {"full", "no-t1ce", "flair-only", "unlabelled", "segmentation-only", "molecular-only"}
    assert everyone - labelled == {"unlabelled"}


def test_pooled_training_makes_the_steps_of_all_its_hospitals(plan) -> None:
    federated, pooled = (plan.experiment(plan.arm(name), 1) for name in ("gmmas", "pooled"))
    assert set(federated.participants) - set(pooled.participants) == {"unlabelled"}, "it makes no steps"
    assert pooled.federation.training.local_steps == 5 * federated.federation.training.local_steps
    assert pooled.federation.quorum.sites == 1
    assert federated.federation.quorum.sites == federated.federation.quorum.replies == 6
    alone = plan.experiment(plan.arm("alone-full"), 1)
    assert (alone.participants, alone.federation.training.local_steps) == (("full",), federated.federation.training.local_steps)


def test_a_hospital_alone_trains_on_all_it_has_drawn(plan) -> None:
    """In the federation those without T1ce leave the enhancing tumour to others; alone there are none."""
    federated = plan.experiment(plan.arm("gmmas"), 1).federation.training
    assert (federated.enhancing_needs_t1ce, federated.backbone) == ("site", "regions")
    for name in ("pooled", "alone-no-t1ce", "alone-flair-only"):
        training = plan.experiment(plan.arm(name), 1).federation.training
        assert (training.enhancing_needs_t1ce, training.backbone) == ("never", "any")


def test_unlabelled_cases_in_one_place_bring_no_steps_of_their_own(plan) -> None:
    without, with_unlabelled = (plan.experiment(plan.arm(name), 1) for name in ("pooled", "pooled-with-unlabelled"))
    assert set(with_unlabelled.participants) - set(without.participants) == {"unlabelled"}
    assert with_unlabelled.federation.training.local_steps == without.federation.training.local_steps
    assert with_unlabelled.steps == without.steps
    assert plan.arm("pooled-with-unlabelled").compare_with == "pooled"


def test_the_plain_average_and_what_it_is_compared_with_differ_in_weighting_alone(plan) -> None:
    plain = plan.arm("fedavg")
    assert plain.compare_with == "enhancing-never"
    one, other = (plan.experiment(plan.arm(name), 1) for name in ("fedavg", plain.compare_with))
    assert one.federation.strategy != other.federation.strategy
    assert one.federation.model_copy(update={"strategy": other.federation.strategy}) == other.federation
    count = {"site": "s", "run": "r", "round": 1, "model_digest": "", "cases": 8}
    for labelled in ({Task.SEGMENTATION: 4, Task.IDH: 2}, {Task.IDH: 8}):
        report = SiteReport(**count, labelled=labelled, modalities=(Modality.T1, Modality.FLAIR))
        sent = groups_sent(report.modalities, labelled, backbone=one.federation.training.backbone)
        plain_weights, weights = (
            choose_weighting(each.federation.strategy, plan=each.federation.training)(report) for each in (one, other)
        )
        rows = [weights.pop(group) for group in REGION_ROWS if group in weights]
        assert plain_weights.keys() & sent == weights.keys() | ({"head.segmentation"} if rows else set())
        assert len(set(rows)) <= 1, "rows that all outlines teach are averaged as the head is"


def test_an_experiment_is_another_with_phantoms_or_samples_made_otherwise(plan, monkeypatch) -> None:
    before = plan.experiment(plan.arms[0], 101)
    monkeypatch.setattr("benchmarks.learning.plan.GENERATOR_VERSION", 99)
    assert plan.experiment(plan.arms[0], 101) != before


def test_every_seed_has_its_own_patients_and_initialisation(plan) -> None:
    first, second = (plan.experiment(plan.arms[0], seed) for seed in (101, 102))
    assert first.cohorts != second.cohorts
    assert first.federation.seed != second.federation.seed


def test_an_experiment_of_before_a_new_key_is_the_same_if_the_key_has_its_default(plan) -> None:
    experiment = plan.experiment(plan.arm("gmmas"), 101)
    stored = experiment.model_dump(mode="json")
    del stored["federation"]["training"]["gradient_clip_norm"]
    assert Experiment.model_validate(stored) == experiment
    stored["federation"]["training"]["gradient_clip_norm"] = 1.0
    assert Experiment.model_validate(stored) != experiment


def test_one_experiment_under_two_names_is_refused(plan) -> None:
    default = FederationConfig().training.uncertainty_weighting
    for surfaces in (False, True):
        twin = Arm(name="twin", piece="p", surfaces=surfaces, changes={"training.uncertainty_weighting": default})
        with pytest.raises(ConfigError, match="same experiment"):
            with_arms(plan, twin).check()


@pytest.mark.parametrize("changes", [{"training.local_stepz": 3}, {"training.local_steps": 0}, {"strategy.kind": "magic"}])
def test_a_change_that_does_not_fit_is_refused(plan, changes) -> None:
    with pytest.raises(ConfigError, match="FederationConfig"):
        with_arms(plan, Arm(name="wrong", piece="p", changes=changes)).check()


def test_unknown_names_are_refused(plan) -> None:
    raw = plan.model_dump()
    for change in ({"reference": "nobody"}, {"test": "nowhere"}, {"arms": [*raw["arms"], raw["arms"][0]]}):
        with pytest.raises(ConfigError):
            LearningPlan.parse(raw | change, where="test")
    with pytest.raises(ConfigError, match="no such arm"):
        pick(plan, arms=["nobody"])


def test_the_reference_is_always_picked(plan) -> None:
    picked = pick(plan, arms=["pooled"], seeds=[9])
    assert [arm.name for arm in picked.arms] == ["gmmas", "pooled"]
    assert picked.seeds == (9,)
    assert pick(plan) == plan


def test_an_experiment_from_before_a_key_existed_is_the_same_one(plan) -> None:
    """Results of long runs stay valid: keys that came later leave at their default what was there before."""
    for name in ("gmmas", "pooled", "fedavg", "server-momentum"):
        experiment = plan.experiment(plan.arm(name), 101)
        raw = experiment.model_dump(mode="json")
        for part, key in [
            ("strategy", "fairness"),
            ("training", "proximal_weight"),
            ("training", "personalised"),
        ]:
            raw["federation"][part].pop(key, None)
        momentum = 0.5 if name == "server-momentum" else 0.0
        raw["federation"]["server_step"] = {"learning_rate": 1.0, "momentum": momentum}
        assert Experiment.model_validate(raw) == experiment


def test_an_arm_brings_what_it_is_compared_with_and_what_that_is(plan) -> None:
    assert [arm.name for arm in pick(plan, arms=["cutmix-off"]).arms] == ["gmmas", "few", "few-semi", "cutmix-off"]


def test_arms_that_need_them_have_more_seeds(plan) -> None:
    more = plan.model_copy(update={"seeds": (101, 102), "more_seeds": (103,), "many": ("gmmas", "semi")})
    runs = [(arm.name, seed) for arm, seed in pick(more, arms=("semi", "pooled")).runs]
    assert runs == [*((arm, seed) for seed in (101, 102) for arm in ("gmmas", "pooled", "semi")), ("gmmas", 103), ("semi", 103)]
    named = pick(more, arms=("pooled",), seeds=(104,))
    assert [(arm.name, seed) for arm, seed in named.runs] == [("gmmas", 104), ("pooled", 104)]
    with pytest.raises(ConfigError, match="no-such-arm"):
        LearningPlan.parse(plan.model_dump() | {"many": ("no-such-arm",)}, where="arms.yaml")
