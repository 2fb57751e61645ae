import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import ARRAYS, Action, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, Modality
from gmmas_schema.wire import WireConfig
from gmmas_workflows.site_state import SiteState
from strategies.codec import read_report, size_bytes, write_request
from strategies.wire import FEEDBACK, PATIENCE, SHELF, WHOLE_UP_TO, Holdings, ModelShelf, OutgoingModel, SiteWire

WEIGHT, BIAS, CODE, ANCHOR = "encoders.t1.0.weight", "fusion.0.bias", "uncertainty.idh", "anchors.sums_KPC"
SCALAR = "fusion.1.bias"
INT8 = WireConfig(up="int8")
SPARSE = WireConfig(up="int8", top_k=0.2)
LOSSY = [WireConfig(up="fp16"), INT8, SPARSE, WireConfig(down="fp32", up="int8")]


def make_model(seed=0):
    rng = np.random.default_rng(seed)
    return {
        WEIGHT: rng.normal(scale=0.1, size=(8, 16, 9)).astype(np.float32),
        BIAS: rng.normal(size=6).astype(np.float32),
        CODE: np.array(rng.normal(), np.float32),
        ANCHOR: rng.normal(scale=100, size=(4, 5)).astype(np.float32),
    }


def make_request(config, number=1, action=Action.TRAIN, counted=None):
    return TaskRequest(action=action, run="r", round=number, rounds=9, seed=3, model=ModelDefinition(), wire=config, counted=counted)


def report_of(request):
    return SiteReport(site="north", run="r", round=request.round, model_digest="d")


def new_site():
    return SiteWire(SiteState(kind=FEEDBACK))


def travel(site, model, config, train, *, number=1, counted=None):
    """Send a model to a site that trains it and answers; return what the coordinator then holds, and the bytes of the answer."""
    outgoing, request = OutgoingModel(model, config=config), make_request(config, number, counted=counted)
    opened, received = site.open(write_request(request, outgoing.pack(MODALITIES)))
    assert opened == request
    content = site.answer(request, report_of(request), received=received, trained=train(received))
    return outgoing.read(content)[1], size_bytes(content)


def same(first, second):
    return {n: (v.shape, v.tobytes()) for n, v in first.items()} == {n: (v.shape, v.tobytes()) for n, v in second.items()}


def test_fp32_both_ways_changes_no_bit():
    model, trained = make_model(), make_model(1)
    found, _ = travel(new_site(), model, WireConfig(down="fp32", up="fp32"), lambda _: trained)
    assert same(found, trained)


def test_a_site_gets_half_precision_of_weights_and_the_very_anchors_and_log_variances():
    model = make_model()
    _, received = new_site().open(write_request(make_request(INT8), OutgoingModel(model, config=INT8).pack(MODALITIES)))
    for name in (WEIGHT, BIAS):
        np.testing.assert_array_equal(received[name], model[name].astype(np.float16).astype(np.float32))
    assert same({n: received[n] for n in (CODE, ANCHOR)}, {n: model[n] for n in (CODE, ANCHOR)})


@pytest.mark.parametrize("config", [WireConfig(up="fp32"), *LOSSY])
def test_a_site_that_changes_nothing_leaves_the_coordinators_model_unrounded(config):
    model = make_model()
    found, _ = travel(new_site(), model, config, dict)
    assert same(found, model)


@pytest.mark.parametrize("config", LOSSY)
def test_a_change_arrives_within_half_a_step_and_counts_and_log_variances_exactly(config):
    model, change = make_model(), make_model(1)
    found, _ = travel(new_site(), model, replace_top_k(config), lambda received: {n: v + change[n] for n, v in received.items()})
    step = np.abs(change[WEIGHT]).max(axis=(1, 2)) / 127
    assert (np.abs(found[WEIGHT] - model[WEIGHT] - change[WEIGHT]).max(axis=(1, 2)) <= step * 0.51 + 1e-6).all()
    assert same({n: found[n] for n in (CODE, ANCHOR)}, {n: model[n] + change[n] for n in (CODE, ANCHOR)})


def replace_top_k(config):
    return config.model_copy(update={"top_k": None})


def test_small_tensors_are_not_thinned_out():
    model, change = make_model(), make_model(1)
    assert model[BIAS].size <= WHOLE_UP_TO < model[WEIGHT].size
    found, _ = travel(new_site(), model, SPARSE, lambda received: {n: v + change[n] for n, v in received.items()})
    whole, _ = travel(new_site(), model, INT8, lambda received: {n: v + change[n] for n, v in received.items()})
    assert same({BIAS: found[BIAS]}, {BIAS: whole[BIAS]})
    assert np.count_nonzero(found[WEIGHT] != model[WEIGHT]) <= np.ceil(0.2 * model[WEIGHT].size)


@given(st.sampled_from(LOSSY), st.integers(1, 5), st.integers(0, 100))
def test_over_the_rounds_all_but_the_last_debt_arrives(config, rounds, seed):
    """What was decoded in R rounds is what was trained in them, less what is still owed: the sum telescopes."""
    model, rng = make_model(seed), np.random.default_rng(seed)
    state = SiteState(kind=FEEDBACK)
    site, trained, arrived = SiteWire(state), 0.0, 0.0
    for number in range(1, rounds + 1):
        change = rng.normal(scale=0.01, size=model[WEIGHT].shape).astype(np.float32)
        found, _ = travel(site, model, config, lambda received, c=change: {WEIGHT: received[WEIGHT] + c}, number=number)
        trained, arrived = trained + change.astype(np.float64), arrived + (found[WEIGHT].astype(np.float64) - model[WEIGHT])
        model = model | found
    owed = state.before(run="r", round=rounds + 1)[WEIGHT]
    np.testing.assert_allclose(arrived + owed, trained, atol=1e-6)
    bound = 0.01 if config.top_k is None else 0.5
    assert np.abs(owed).max() < bound


@given(
    st.sampled_from(LOSSY),
    st.lists(st.sampled_from(["counts", "counts at the second attempt", "is lost", "is refused", "never asked"]), min_size=1, max_size=12),
    st.integers(0, 100),
)
def test_what_counted_and_what_is_owed_are_the_changes_of_the_rounds_that_counted(config, fates, seed):
    """Over any pattern of rounds; and a site whose answers did not count sends the very bits of one that was not asked in those rounds."""
    model, rng = make_model(seed), np.random.default_rng(seed)
    state, counted, trained, arrived = SiteState(kind=FEEDBACK), 0, 0.0, 0.0
    site, twin = SiteWire(state), new_site()
    for number, fate in enumerate(fates, start=1):
        change = rng.normal(scale=1e4 if fate == "is refused" else 0.01, size=model[WEIGHT].shape).astype(np.float32)
        train = lambda received, c=change: {WEIGHT: received[WEIGHT] + c}  # noqa: E731
        place = {"number": number, "counted": counted}

        for _ in range({"never asked": 0, "counts at the second attempt": 2}.get(fate, 1)):
            found, _ = travel(site, model, config, train, **place)
        if fate.startswith("counts"):
            assert same(found, travel(twin, model, config, train, **place)[0])
            trained, arrived = trained + change.astype(np.float64), arrived + (found[WEIGHT].astype(np.float64) - model[WEIGHT])
            model, counted = model | found, number
    owed = state.before(run="r", round=len(fates) + 1, counted=counted).get(WEIGHT, 0.0)
    np.testing.assert_allclose(arrived + owed, trained, atol=1e-6)


def test_where_every_answer_counts_saying_so_changes_no_bit():
    model, told, untold = make_model(), new_site(), new_site()
    for number in range(1, 6):
        change = make_model(number)
        answers = [
            travel(site, model, SPARSE, lambda received, c=change: {WEIGHT: received[WEIGHT] + c[WEIGHT]}, number=number, counted=counted)
            for site, counted in ((told, number - 1), (untold, None))
        ]
        assert same(answers[0][0], answers[1][0])
        model |= answers[0][0]


@pytest.mark.parametrize("said", range(9))
def test_a_coordinator_that_lies_gets_one_of_the_debts_of_this_run_or_none(said):
    state, model, owed = SiteState(kind=FEEDBACK), make_model(), [np.zeros_like(make_model()[BIAS])]
    site = SiteWire(state)
    state.write({BIAS: np.full(6, 1e6, np.float32)}, run="another", round=1)
    for number in range(1, 6):
        change = make_model(number)[BIAS]
        travel(site, model, INT8, lambda received, c=change: {BIAS: received[BIAS] + c}, number=number, counted=number - 1)
        owed.append(state.before(run="r", round=number + 1)[BIAS])
    found, _ = travel(site, model, INT8, lambda received: {BIAS: received[BIAS] + np.float32(1)}, number=6, counted=said)
    sent = found[BIAS] - model[BIAS] + state.before(run="r", round=7)[BIAS]
    assert any(np.allclose(sent, 1 + debt, atol=1e-6) for debt in owed)


@pytest.mark.parametrize("feedback", [True, False])
def test_a_change_below_half_a_step_arrives_in_the_end_with_feedback_and_never_without(feedback):
    config = INT8.model_copy(update={"error_feedback": feedback})
    start = {WEIGHT: np.zeros((1, 2), np.float32), BIAS: np.zeros(2, np.float32)}
    model, site = dict(start), new_site()
    step = np.array([1.0, 0.1 / 127], np.float32)
    for number in range(1, 51):
        found, _ = travel(site, model, config, lambda received: {BIAS: received[BIAS] + step}, number=number)
        model |= found
    assert model[BIAS][1] == pytest.approx(50 * step[1] if feedback else 0, rel=0.2)


def test_debts_are_kept_for_what_was_sent_alone():
    state = SiteState(kind=FEEDBACK)
    site, model = SiteWire(state), make_model()
    travel(site, model, INT8, lambda received: {n: v + np.float32(0.1) * v for n, v in received.items()})
    assert set(state.before(run="r", round=2)) == {WEIGHT, BIAS}
    travel(site, model, INT8, lambda received: {BIAS: received[BIAS] * 2}, number=2)
    assert set(state.before(run="r", round=3)) == {BIAS}
    travel(site, model, WireConfig(), lambda received: {BIAS: received[BIAS] * 2}, number=3)
    assert set(state.before(run="r", round=4)) == {BIAS}


def test_a_repeated_round_sends_the_same_bytes():
    site, model = new_site(), make_model()

    def content(number, seed):
        request, outgoing = make_request(SPARSE, number), OutgoingModel(model, config=SPARSE)
        _, received = site.open(write_request(request, outgoing.pack(MODALITIES)))
        trained = {WEIGHT: received[WEIGHT] + make_model(seed)[WEIGHT]}
        return site.answer(request, report_of(request), received=received, trained=trained)[ARRAYS]["tensors"].data

    sent = [content(number, number) for number in (1, 2, 3)]
    assert content(3, 3) == sent[2]
    assert content(3, 9) != sent[2]
    assert content(3, 3) == sent[2]


def test_a_debt_of_another_shape_is_dropped():
    state = SiteState(kind=FEEDBACK)
    state.write({BIAS: np.ones(99, np.float32)}, run="r", round=1)
    model = make_model()
    found, _ = travel(SiteWire(state), model, INT8, lambda received: {BIAS: received[BIAS] + 1}, number=2)
    np.testing.assert_allclose(found[BIAS], model[BIAS] + 1, atol=0.01)


@pytest.mark.parametrize("config", LOSSY)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_training_that_diverged_is_refused_at_the_site_once(config, value):
    """What is owed stays as it was: one bad value must not spoil every answer after it."""
    state, model = SiteState(kind=FEEDBACK), make_model() | {SCALAR: np.array([0.1], np.float32)}
    site = SiteWire(state)
    travel(site, model, config, lambda received: {n: received[n] * np.float32(1.01) for n in (BIAS, SCALAR)})
    owed = state.before(run="r", round=2)
    for name in (BIAS, SCALAR):
        with pytest.raises(ProtocolError, match="not finite"):
            travel(site, model, config, lambda received, name=name: dict(received) | {name: received[name] * np.float32(value)}, number=2)
    assert same(state.before(run="r", round=3), owed)
    found, _ = travel(site, model, config, lambda received: {n: received[n] * np.float32(1.01) for n in (BIAS, SCALAR)}, number=3)
    assert all(np.isfinite(each).all() for each in found.values())


def test_weights_that_half_precision_cannot_hold_travel_in_full():
    model = make_model() | {BIAS: np.full(6, 1e6, np.float32)}
    found, _ = travel(new_site(), model, INT8, dict)
    assert same(found, model)
    _, received = new_site().open(write_request(make_request(INT8), OutgoingModel(model, config=INT8).pack(MODALITIES)))
    assert same({BIAS: received[BIAS]}, {BIAS: model[BIAS]})


def test_unknown_names_and_shapes_come_back_as_they_were_sent_for_the_checks_to_name():
    model, foreign = (
        make_model(),
        {"fusion.backdoor": np.ones(1, np.float32), "nonsense": np.ones(1, np.float32), BIAS: np.ones(2, np.float32)},
    )
    found, _ = travel(new_site(), model, WireConfig(), lambda _: foreign)
    assert same(found, foreign)


def test_more_values_than_two_models_are_refused_unread():
    model = make_model()
    with pytest.raises(ProtocolError, match="cannot be read"):
        travel(new_site(), model, WireConfig(), lambda _: {"fusion.0": np.zeros(2 * sum(v.size for v in model.values()) + 1, np.float32)})


def test_the_digest_is_that_of_what_arrives_and_depends_on_the_sequences():
    outgoing = OutgoingModel(make_model(), config=INT8)
    assert outgoing.pack(MODALITIES).digest == outgoing.digest(MODALITIES)
    assert outgoing.digest((Modality.T2,)) != outgoing.digest(MODALITIES)
    assert OutgoingModel(make_model(), config=WireConfig(down="fp32")).digest(MODALITIES) != outgoing.digest(MODALITIES)


def test_a_model_is_found_again_by_its_hash_until_others_took_its_place():
    site = new_site()
    digests = []
    for seed in range(SHELF + 1):
        outgoing = OutgoingModel(make_model(seed), config=INT8)
        _, received = site.open(write_request(make_request(INT8), outgoing.pack(MODALITIES)))
        digests.append(outgoing.digest(MODALITIES))
        again = site.open(write_request(make_request(INT8, action=Action.EVALUATE), digest=digests[-1]))
        assert same(again[1], received)
    with pytest.raises(ProtocolError) as caught:
        site.open(write_request(make_request(INT8), digest=digests[0]))
    assert caught.value.code is ReasonCode.MODEL_NEEDED


def test_an_evaluation_is_answered_without_tensors():
    request = make_request(INT8, action=Action.EVALUATE)
    report, tensors = read_report(new_site().answer(request, report_of(request), received={}, trained={}))
    assert (report.site, tensors) == ("north", {})


def test_beliefs_about_a_node_end_with_its_activation_and_with_its_second_lapse():
    holdings = Holdings()
    assert not holdings.has(7, "a", "m1")
    for digest in ("m1", "m2", "m1", "m3"):
        holdings.note(7, "a", digest)
    assert [holdings.has(7, "a", digest) for digest in ("m1", "m2", "m3")] == [True, False, True]
    assert not holdings.has(7, "b", "m1")
    assert not holdings.has(8, "a", "m1")
    for _ in range(PATIENCE):
        holdings.miss(7, "a")
        assert not holdings.has(7, "a", "m3")
        holdings.note(7, "a", "m3")
    assert not holdings.has(7, "a", "m3")


def test_beliefs_follow_the_shelf_of_the_site():
    """Whatever the order of requests, a site that never forgets more than its shelf does is never asked in vain."""
    rng, holdings, shelf = np.random.default_rng(0), Holdings(), ModelShelf()
    named = 0
    for digest in rng.choice(list("abcd"), 200):
        if holdings.has(1, "x", digest):
            shelf.take(digest)
            named += 1
        else:
            shelf.put(digest, {})
        holdings.note(1, "x", digest)
    assert named > 50


@pytest.mark.parametrize("up", ["fp32", "fp16"])
def test_sparse_changes_of_another_precision_are_refused_by_name(up):
    with pytest.raises(ValidationError, match=f"top_k .0.2. needs up: int8, not up: {up}"):
        WireConfig(up=up, top_k=0.2)
