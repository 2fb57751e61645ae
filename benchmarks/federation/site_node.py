"""`gmmas site start` with benchmarks.federation.site_trainer in the trainer's place; all else is what a hospital runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gmmas_cli.site
from client.node import TRAINER, make_specs
from gmmas_cli.main import main
from gmmas_runtime.processes import ProcessSpec
from gmmas_schema.site import SiteConfig

STAND_IN = "benchmarks.federation.site_trainer"


def specs_with_stand_in(config: SiteConfig, *, config_path: Path) -> list[ProcessSpec]:
    """Return the node's processes with the stand-in."""
    specs = make_specs(config, config_path=config_path)
    return [
        replace(spec, argv=tuple(STAND_IN if word == "client.trainer" else word for word in spec.argv)) if spec.name == TRAINER else spec
        for spec in specs
    ]


if __name__ == "__main__":
    command: Any = gmmas_cli.site
    command.make_specs = specs_with_stand_in
    main()
