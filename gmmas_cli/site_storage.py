"""`gmmas site rotate-key`, `gmmas site prune-cache`: the key under which this node's files lie encrypted, and the room of the cache."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.folder import NodeFolder
from gmmas_cli.encryption import require_encryption, rotate, tell
from gmmas_data.cache import prune_samples, sealed_samples
from gmmas_runtime.process_state import is_supervised
from gmmas_schema.errors import FederationError
from gmmas_schema.site import SiteConfig
from gmmas_workflows.site_state import sealed_states


def rotate_key(
    config: Annotated[Path, typer.Option("--config", "-c", help="site.yaml of the node.")] = Path("site.yaml"),
) -> None:
    """Encrypt what this node keeps, cached samples and what it carries from round to round, under a new key.

    The first call makes the key file that site.yaml names. The node must not run. Broken off, call it again.
    """
    site = SiteConfig.from_yaml(config)
    encryption = require_encryption(site.encryption, where=config)
    folder = NodeFolder(site.node.state)
    if is_supervised(folder.state_file):
        raise FederationError(
            "the node is running",
            where=folder.root,
            got="processes that write these files",
            expected="a stopped node",
            remedy=f"gmmas site stop --config {config}, rotate the key, and start it again",
        )
    folder.make()
    with folder.held_by_trainer():
        tell(encryption, rotate(encryption, [*sealed_samples(folder.cache), *sealed_states(folder.training)]))


def prune_cache(
    config: Annotated[Path, typer.Option("--config", "-c", help="site.yaml of the node.")] = Path("site.yaml"),
    *,
    days: Annotated[float, typer.Option(min=0, help="Entries that were not used for so many days are deleted.")] = 60.0,
) -> None:
    """Delete preprocessed scans that were not used for a while: of grids that no run has any more, of cases that have gone.

    The node may run. A scan that is needed again is preprocessed again.
    """
    folder = NodeFolder(SiteConfig.from_yaml(config).node.state)
    deleted = prune_samples(folder.cache, unused_days=days) if folder.cache.is_dir() else 0
    Console().print(f"Deleted {deleted} preprocessed scans that were not used for {days:g} days.")
