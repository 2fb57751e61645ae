import pytest

from gmmas_schema.coordinator import CoordinatorDeployment, DashboardConfig
from gmmas_schema.errors import ConfigError


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 1023},
        {"hosts": ["desk.example.org:443"]},
        {"hosts": ["*"]},
        {"session_hours": 0},
        {"session_hours": 1000},
        {"idle_minutes": -1},
        {"mlflow": "javascript:alert(1)"},
        {"mlflow": 'http://127.0.0.1:5000/" onclick'},
        {"address": "0.0.0.0"},
    ],
)
def test_a_dashboard_is_on_loopback_and_its_links_are_addresses(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"dashboard.{next(iter(wrong))}"):
        CoordinatorDeployment.parse({"dashboard": wrong}, where="test")


def test_a_dashboard_needs_nothing_but_to_be_asked_for() -> None:
    assert CoordinatorDeployment.parse({}, where="test").dashboard is None
    made = CoordinatorDeployment.parse({"dashboard": {}}, where="test").dashboard
    assert made == DashboardConfig()
    assert made.address == "http://127.0.0.1:9093"
