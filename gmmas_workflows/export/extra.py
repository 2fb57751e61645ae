"""The packages of the optional dependency `export`, asked for before any work is done."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from gmmas_schema.errors import ConfigError

ONNX_PACKAGES: Final = ("onnx", "onnxruntime", "onnxscript")
BUNDLE_PACKAGES: Final = ("fire", "ignite", "jsonschema")


def require_packages(packages: Sequence[str], *, purpose: str) -> None:
    """Check that packages can be imported, without importing them.

    Args:
        packages: import names.
        purpose: what needs them, in words.

    Raises:
        ConfigError: some are not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{purpose} needs packages that are not installed",
            got=f"no {', '.join(missing)}",
            expected="the optional dependency `export`",
            remedy="pip install 'gmmas-fed[export]'",
        )
