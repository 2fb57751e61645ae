"""The generic package names resolve to this repository, and the node's executor stays light."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["server", "client", "strategies", "gmmas_schema"])
def test_package_resolves_under_the_repository_root(name: str) -> None:
    found = Path(str(import_module(name).__file__)).resolve()
    assert found.parent.parent == ROOT


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (("gmmas_schema.federation", "gmmas_schema.site"), {"torch", "flwr", "numpy"}),
        (("gmmas_cli.main",), {"torch", "mlflow", "flwr"}),
        (("gmmas_cli.server",), {"torch", "mlflow", "scipy", "matplotlib"}),
        (("server.app", "server.conclusion", "server.validation"), {"torch", "mlflow", "matplotlib"}),
        (("client.app", "client.executor", "server.dashboard.app"), {"torch", "monai", "mlflow"}),
    ],
)
def test_modules_do_not_load_heavy_packages(modules: tuple[str, ...], forbidden: set[str]) -> None:
    """A fresh interpreter imports one after the other; what is there after each is read from sys.modules."""
    code = f"""
import sys
from importlib import import_module
for module in {modules!r}:
    import_module(module)
    print(module, *({forbidden!r} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert found == list(modules)


def test_every_test_folder_is_a_package() -> None:
    """Without __init__.py in tests/, tests/server would shadow the real server package."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_app_bundle_holds_code_only() -> None:
    """Site configurations and data never travel: the bundle's patterns name Python files of four packages."""
    import tomllib

    app = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert all(pattern.endswith(".py") for pattern in app["fab-include"])
    assert {pattern.split("/")[0] for pattern in app["fab-include"]} <= {"server", "client", "strategies", "gmmas_schema"}
