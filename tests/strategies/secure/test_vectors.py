import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.groups import REGION_ROWS
from strategies.rows import split_rows
from strategies.secure.documents import ALL_GROUPS
from strategies.secure.vectors import add_update, flatten_update, group_names, group_sizes

NAMES = ("fusion.b", "encoders.t1.x", "fusion.a", "decoder.w", "heads.segmentation.weight", "heads.segmentation.bias")


def make_model(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"heads.segmentation.weight": (3, 2, 1, 1, 1), "heads.segmentation.bias": (3,)}
    return {name: rng.standard_normal(shapes.get(name, (2, 3))).astype(np.float32) for name in NAMES}


@given(st.permutations(NAMES))
def test_the_order_of_tensors_does_not_matter(order):
    model, trained = make_model(), make_model(1)
    flat = flatten_update({name: trained[name] for name in order}, {name: model[name] for name in reversed(order)})
    expected = flatten_update(trained, model)
    assert {group: value.tobytes() for group, value in flat.items()} == {group: value.tobytes() for group, value in expected.items()}


def test_an_update_that_is_added_again_gives_what_was_trained():
    model, trained = make_model(), make_model(1)
    following = {}
    for group, delta in flatten_update(trained, model).items():
        assert delta.size == group_sizes(model)[group]
        following |= add_update(model, group, delta)
    assert following.keys() == trained.keys()
    for name, value in trained.items():
        np.testing.assert_allclose(following[name], value, atol=1e-6)


def test_rows_of_the_segmentation_head_are_groups_of_their_own():
    assert set(group_names(split_rows(make_model()))) == {"encoder.t1", "fusion", "decoder", *REGION_ROWS}
    assert tuple(group_names(split_rows(make_model()))) == tuple(
        group for group in ALL_GROUPS if group in group_names(split_rows(make_model()))
    )
