import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from client.trainer_channel import SERVICE, pack_tensors, unpack_tensors
from client.trainer_service_pb2 import DESCRIPTOR
from gmmas_schema.errors import ProtocolError

ROOT = Path(__file__).parents[2]
GENERATED = ("trainer_service_pb2.py", "trainer_service_pb2.pyi", "trainer_service_pb2_grpc.py")


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3).flatmap(lambda shape: arrays(np.float32, shape)),
        max_size=4,
    )
)
def test_tensors_arrive_as_they_were_sent(tensors: dict[str, np.ndarray]) -> None:
    arrived = unpack_tensors(pack_tensors(tensors))
    assert set(arrived) == set(tensors)
    for name, value in tensors.items():
        assert arrived[name].shape == value.shape
        np.testing.assert_array_equal(arrived[name], value)


def test_a_transposed_tensor_arrives_in_its_own_shape() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(unpack_tensors(pack_tensors({"a": value}))["a"], value)


@pytest.mark.parametrize("packed", [b"x", b"\x00" * 100, pack_tensors({"a": np.zeros(3, np.float32)})[:-1]])
def test_damaged_tensors_are_refused(packed: bytes) -> None:
    with pytest.raises(ProtocolError, match="tensors cannot be read"):
        unpack_tensors(packed)


def test_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, "client/trainer_service.proto"], cwd=ROOT, check=True)
    for name in GENERATED:
        assert (tmp_path / "client" / name).read_text() == (ROOT / "client" / name).read_text(), f"{name} is not up to date"


def test_the_service_is_named_as_the_health_service_calls_it() -> None:
    assert [service.full_name for service in DESCRIPTOR.services_by_name.values()] == [SERVICE]
