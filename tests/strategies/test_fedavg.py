from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import SiteReport
from gmmas_schema.vocabulary import MODALITIES, Task
from strategies.fedavg import weigh_cases


def test_every_group_the_site_sends_is_weighted_by_its_cases():
    labelled = {Task.SEGMENTATION: 3, Task.IDH: 5}
    report = SiteReport(site="s", run="r", round=1, model_digest="d", modalities=MODALITIES, cases=12, labelled=labelled)
    assert weigh_cases(report) == dict.fromkeys(groups_sent(MODALITIES, labelled), 12.0) | {"anchors": 1.0}


def test_a_site_without_cases_has_no_weight():
    assert weigh_cases(SiteReport(site="s", run="r", round=1, model_digest="d", modalities=MODALITIES)) == {}
