import pytest

from gmmas_model.network import GmmasNetwork
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Split, join_modalities, split_modalities
from gmmas_workflows.evaluation import score_samples, subsets, summarise
from gmmas_workflows.subset_evaluation import evaluate_subsets


def test_every_subset_is_measured_on_the_cases_that_have_it(make_sample, definition) -> None:
    network = GmmasNetwork(definition.network).eval()
    complete = [make_sample(number) for number in range(3)]
    without_t1ce = [make_sample(number, modalities=(Modality.T2, Modality.FLAIR)) for number in range(3, 5)]
    seen = []
    found = evaluate_subsets(network, [*complete, *without_t1ce], split=Split.TEST, seed=0, on_progress=lambda *at: seen.append(at))
    assert list(found) == [join_modalities(subset) for subset in subsets(MODALITIES)]
    assert seen[-1] == (15, 15)
    assert {name: own.cases for name, own in found.items() if "t1ce" in name or "t1" in name.split("+")} == dict.fromkeys(
        [name for name in found if "t1ce" in name or "t1" in name.split("+")], 3
    )
    assert found["t2"].cases == found["flair"].cases == found["t2+flair"].cases == 5
    # A subset's figure is that of the network that is shown these sequences alone.
    alone = summarise(score_samples(network, complete, modalities=(Modality.T1,)), split=Split.TEST, seed=0)
    assert found["t1"].dice[Region.WT] == alone.dice[Region.WT]


def test_a_site_with_two_sequences_measures_three_subsets(make_sample, definition) -> None:
    held = (Modality.T2, Modality.FLAIR)
    network = GmmasNetwork(definition.network, modalities=held).eval()
    samples = [make_sample(number, modalities=held) for number in range(2)]
    assert list(evaluate_subsets(network, samples, split=Split.TEST, seed=0)) == ["t2+flair", "t2", "flair"]
    # Of one patient, or of fewer than a policy asks for, nothing is told.
    assert evaluate_subsets(network, samples[:1], split=Split.TEST, seed=0) == {}
    assert evaluate_subsets(network, samples, split=Split.TEST, seed=0, fewest=3) == {}
    assert evaluate_subsets(network, [], split=Split.TEST, seed=0) == {}


def test_names_of_subsets_are_read_back_and_nothing_else_is() -> None:
    for subset in subsets(MODALITIES):
        assert split_modalities(join_modalities(reversed(subset))) == subset
    for name in ("", "t2+t1", "t1+t1", "t1+pet", "T1", "+"):
        with pytest.raises(ValueError, match="no subset"):
            split_modalities(name)
