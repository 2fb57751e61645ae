"""Who has no say has none, to the last bit, through weighting, averaging and every kind of server step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import PseudoLabels, SiteReport
from gmmas_schema.strategy import AdamStep, AverageStep, HoldersStrategy, MomentumStep, PseudoTerms, YogiStep
from gmmas_schema.vocabulary import MODALITIES, REGIONS, TASKS, Modality, Region, Task
from strategies.aggregation import RunningMean
from strategies.holders import weigh_holders
from strategies.rows import join_rows, split_rows
from strategies.server_step import make_step

PLAN = TrainingPlan(enhancing_needs_t1ce="site")
STRATEGY = HoldersStrategy(region_rows=True, fairness=1)
STEPS = [AverageStep(learning_rate=0.9), MomentumStep(), AdamStep(), YogiStep()]
PSEUDO = PseudoTerms(weights={Region.WT: 0.5, Task.IDH: 0.5}, limits={"decoder": 0.3})
LEDGER = PseudoLabels(offered=9, accepted=9, positive=5, negative=4, share=1, agreement=1)


def model(seed):
    rng = np.random.default_rng(seed)
    shapes = {f"encoders.{m}.w": (2, 3) for m in MODALITIES} | {f"gates.{m}.bias": (2,) for m in MODALITIES}
    shapes |= {"fusion.w": (3,), "decoder.w": (3,), "heads.segmentation.weight": (3, 4, 1, 1, 1), "heads.segmentation.bias": (3,)}
    shapes |= {f"heads.{t}.w": (2, 2) for t in TASKS if t is not Task.SEGMENTATION} | {f"uncertainty.{t}": () for t in TASKS}
    return {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}


sites = st.lists(
    st.tuples(
        st.sets(st.sampled_from(MODALITIES), min_size=1).map(lambda held: tuple(m for m in MODALITIES if m in held)),
        st.fixed_dictionaries({task: st.sampled_from([0, 0, 4, 30]) for task in TASKS}),
        st.booleans(),
        st.integers(0, 2**31),
    ),
    min_size=1,
    max_size=4,
)


def following(federation, config, *, tamper=lambda site, tensors: tensors):
    """Return the model after two rounds; sites send every tensor of the model, whether they may or not."""
    previous, current, state = None, model(0), {}
    for number in (1, 2):
        mean = RunningMean(split_rows(current))
        for index, (modalities, labelled, pseudo, seed) in enumerate(federation):
            report = SiteReport(
                site=f"site{index}",
                run="r",
                round=number,
                model_digest="d",
                modalities=modalities,
                cases=50,
                labelled=labelled,
                pseudo_labels={Region.WT: LEDGER, Task.IDH: LEDGER} if pseudo else {},
                losses=dict.fromkeys(labelled, 0.5),
            )
            weights = weigh_holders(report, pseudo=PSEUDO, plan=PLAN, strategy=STRATEGY)
            mean.fold(report.site, split_rows(tamper(index, model(seed + number))), weights=weights)
        moved = {group for own in mean.shares().values() for group in own}
        before = None if previous is None else split_rows(previous)
        step = make_step(config, mean=mean.result(), current=split_rows(current), previous=before, moved=moved, state=state)
        previous, current, state = current, join_rows(step.tensors), step.state
    return current


@pytest.mark.parametrize("config", STEPS, ids=lambda config: config.kind)
@settings(max_examples=25)
@given(federation=sites, task=st.sampled_from(TASKS), shift=st.floats(0.125, 100, width=32))
def test_heads_are_moved_by_those_with_labels_alone(config, federation, task, shift):
    """Pseudo-labels are no labels; what a site without any puts into the head changes no bit of the next one."""

    def tamper(index, tensors):
        if federation[index][1][task] == 0:
            tensors = tensors | {name: v + np.float32(shift) for name, v in tensors.items() if name.startswith(f"heads.{task}.")}
            tensors[f"uncertainty.{task}"] = np.float32(shift).reshape(())
        return tensors

    honest, tampered = following(federation, config), following(federation, config, tamper=tamper)
    assert all(value.tobytes() == tampered[name].tobytes() for name, value in honest.items())


@pytest.mark.parametrize("config", STEPS, ids=lambda config: config.kind)
@settings(max_examples=25)
@given(federation=sites, shift=st.floats(0.125, 100, width=32))
def test_the_row_of_the_enhancing_tumour_is_moved_by_those_that_see_it_alone(config, federation, shift):
    def tamper(index, tensors):
        if Modality.T1CE not in federation[index][0]:
            for name in ("heads.segmentation.weight", "heads.segmentation.bias"):
                tensors[name][REGIONS.index(Region.ET)] += shift
        return tensors

    honest, tampered = following(federation, config), following(federation, config, tamper=tamper)
    assert all(value.tobytes() == tampered[name].tobytes() for name, value in honest.items())


@pytest.mark.parametrize("config", STEPS, ids=lambda config: config.kind)
@settings(max_examples=25)
@given(federation=sites)
def test_what_nobody_holds_stays_as_it_was(config, federation):
    after, before = following(federation, config), model(0)
    trains = [any(labelled.values()) or pseudo for _, labelled, pseudo, _ in federation]
    for modality in MODALITIES:
        held = any(modality in modalities and able for (modalities, *_), able in zip(federation, trains, strict=True))
        gated = any(
            modality in modalities and len(modalities) > 1 and able for (modalities, *_), able in zip(federation, trains, strict=True)
        )
        assert (after[f"encoders.{modality}.w"].tobytes() == before[f"encoders.{modality}.w"].tobytes()) == (not held)
        assert (after[f"gates.{modality}.bias"].tobytes() == before[f"gates.{modality}.bias"].tobytes()) == (not gated)
