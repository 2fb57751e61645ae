from torch import nn

from gmmas_model.network import GmmasNetwork
from gmmas_model.norms import norm_names
from gmmas_schema.model import NetworkConfig


def test_every_norm_of_the_network_is_found_and_nothing_else():
    network = GmmasNetwork(NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=1, transformer_heads=2, prototypes=1))
    found = norm_names(network)
    assert all(".norm" in name or "_norm." in name for name in found)
    vectors = {name for name, parameter in network.named_parameters() if ".norm" in name or "_norm." in name}
    assert found == vectors
    assert {name.partition(".")[0] for name in found} == {"encoders", "bottleneck", "decoder", "adapter"}


def test_layers_are_known_by_kind_whatever_they_are_called():
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Sequential(nn.GroupNorm(2, 4), nn.BatchNorm1d(4), nn.RMSNorm(4)))
    assert norm_names(network) == {"1.weight", "1.bias", "2.0.weight", "2.0.bias", "2.1.weight", "2.1.bias", "2.2.weight"}
    assert norm_names(nn.InstanceNorm3d(4)) == frozenset()
