"""Who is in a cohort: exact counts, unique names, labels that nest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.phantom.plan import plan_site, share_out
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.vocabulary import SUBTYPES, Subtype, Task

weights = st.lists(st.floats(0, 10), min_size=3, max_size=3).filter(lambda w: sum(w) > 0.01)


def make_spec(**site: object) -> PhantomSpec:
    sites = [{"name": "a", "cases": 20, "scanner": "research-3t", **site}, {"name": "b", "cases": 5, "scanner": "old-1.5t"}]
    return PhantomSpec.parse({"seed": 1, "sites": sites}, where="test")


@given(weights, st.integers(1, 500))
def test_shares_sum_and_stay_within_one_of_exact(values: list[float], total: int) -> None:
    counts = share_out(dict(zip(SUBTYPES, values, strict=True)), total)
    assert sum(counts.values()) == total
    assert all(abs(counts[s] - total * w / sum(values)) < 1 + 1e-9 for s, w in zip(SUBTYPES, values, strict=True))


def test_identifiers_are_unique_over_sites() -> None:
    spec = make_spec()
    names = [case.patient_id for site in spec.sites for case in plan_site(spec, site)]
    assert len(set(names)) == 25
    assert names[0] == "PH-A-0001"


def test_a_site_does_not_depend_on_its_neighbours() -> None:
    spec = make_spec()
    alone = PhantomSpec(seed=1, sites=spec.sites[1:])
    assert [(c.patient_id, c.subtype, c.seed.spawn_key) for c in plan_site(spec, spec.sites[1])] == [
        (c.patient_id, c.subtype, c.seed.spawn_key) for c in plan_site(alone, alone.sites[0])
    ]


def test_seeds_differ_between_sites_and_cases() -> None:
    spec = make_spec()
    states = {tuple(case.seed.generate_state(4)) for site in spec.sites for case in plan_site(spec, site)}
    assert len(states) == 25


def test_labels_are_shares_of_patients_and_nest() -> None:
    spec = make_spec(labelled={"segmentation": 0.25, "idh": 0.5, "codeletion": 0.5})
    plan = plan_site(spec, spec.sites[0])
    held = {task: {case.patient_id for case in plan if task in case.labelled} for task in Task}
    counts = {Task.SEGMENTATION: 5, Task.IDH: 10, Task.CODELETION: 10, Task.GRADE: 10, Task.MGMT: 0}
    assert {task: len(ids) for task, ids in held.items()} == counts
    assert held[Task.IDH] == held[Task.CODELETION] == held[Task.GRADE] > held[Task.SEGMENTATION]


@pytest.mark.parametrize(("labelled", "grades"), [({"idh": 0.2}, 4), ({"codeletion": 0}, 0), ({"grade": 0.1}, 2)])
def test_a_grade_is_published_with_both_markers_only(labelled: dict[str, float], grades: int) -> None:
    spec = make_spec(labelled=labelled)
    plan = plan_site(spec, spec.sites[0])
    graded = [case for case in plan if Task.GRADE in case.labelled]
    assert len(graded) == grades
    assert all({Task.IDH, Task.CODELETION} <= case.labelled for case in graded)


def test_a_mix_of_one_subtype_has_no_other() -> None:
    spec = make_spec(mix={"astrocytoma": 1})
    assert {case.subtype for case in plan_site(spec, spec.sites[0])} == {Subtype.ASTROCYTOMA}
