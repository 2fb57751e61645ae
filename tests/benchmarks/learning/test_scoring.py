import pytest
import torch

from benchmarks.learning.scoring import ALL, CaseRow, score_every_subset, score_shown
from gmmas_model.metrics import MISSED_MM
from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Task
from tests.benchmarks.learning.samples import make_sample

TINY = NetworkConfig(channels=(2, 4), blocks=(1, 1), transformer_layers=1, transformer_heads=2)


def make_network(modalities=MODALITIES) -> GmmasNetwork:
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GmmasNetwork(TINY, modalities=modalities)


@pytest.fixture(scope="module")
def samples():
    return [make_sample(1), make_sample(2, enhancing=False), make_sample(3, segmentation=False)]


def test_rows_of_all_15_subsets_in_the_order_of_the_samples(samples) -> None:
    rows = score_every_subset(make_network(), samples)
    assert len(rows) == 15
    assert {tuple(row.case for row in of_subset) for of_subset in rows.values()} == {("c1", "c2", "c3")}
    assert [len(row.dice) for row in rows[ALL]] == [3, 3, 0]
    assert [row.truth for row in rows[ALL]] == [{Task.IDH: True}, {Task.IDH: False}, {Task.IDH: True}]
    probabilities = {rows[name][0].probability[Task.IDH] for name in rows}
    assert len(probabilities) == 15, "each subset is another input"


def test_a_model_that_reads_nothing_of_what_is_shown_says_nothing(samples) -> None:
    network = make_network((Modality.FLAIR, Modality.T2))
    rows = score_shown(network, samples, [Modality.T1CE])
    assert [row.probability[Task.IDH] for row in rows] == [0.5] * 3
    assert rows[0].dice == dict.fromkeys(Region, 0.0)
    assert rows[1].dice == {Region.WT: 0.0, Region.TC: 0.0, Region.ET: 1.0}, "nothing found where nothing is"
    shown = score_shown(network, samples, [Modality.T1CE, Modality.FLAIR])
    assert shown[0] == score_shown(network, samples, [Modality.FLAIR])[0]
    assert shown[0].probability[Task.IDH] != 0.5


def test_surfaces_are_compared_where_that_is_asked_for_and_change_nothing_else(samples) -> None:
    network = make_network((Modality.T1, Modality.FLAIR))
    plain, with_surfaces = (score_shown(network, samples, [Modality.T1], surfaces=on) for on in (False, True))
    assert all(row.hd95_mm == {} for row in plain)
    assert [set(row.hd95_mm) for row in with_surfaces] == [set(Region), set(Region), set()]
    assert [row.model_copy(update={"hd95_mm": {}}) for row in with_surfaces] == list(plain)
    nothing = score_shown(network, samples, [Modality.T2], surfaces=True)
    assert nothing[1].hd95_mm == {Region.WT: MISSED_MM, Region.TC: MISSED_MM, Region.ET: 0.0}
    assert nothing[2].hd95_mm == {}


def test_rows_of_before_there_were_surfaces_are_read() -> None:
    old = '{"case":"c1","dice":{"wt":0.5,"tc":0.5,"et":0.5},"probability":{"idh":0.5},"truth":{"idh":true}}'
    assert CaseRow.model_validate_json(old).hd95_mm == {}
