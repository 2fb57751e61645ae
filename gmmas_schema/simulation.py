"""Configuration of a simulated federation (simulation.yaml): whose cases, and the federated run; all on one machine, in one command."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BeforeValidator, PositiveInt, ValidationInfo, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.standalone import CohortConfig

Config = TypeVar("Config", bound=FrozenModel)

_LONGEST_NAME: Final = 31
"""As in gmmas_schema.coordinator.SITE_NAME."""


def _or_file(kind: type[Config]) -> BeforeValidator:
    """Accept the path of a YAML file, relative to the file that names it, in place of its contents."""

    def read(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str | Path):
            return value
        folder = (info.context or {}).get("folder")
        return kind.from_yaml(Path(value) if folder is None else folder / value)

    return BeforeValidator(read)


class SimulationConfig(FrozenModel):
    """A federation whose sites are functions on this machine. The round loop, the codec and the checks are those of a real one.

    Attributes:
        federation: as federation.yaml, or the path of one.
        phantom: cohorts to make, or the path of their specification; they lie in `cohorts/` of the run's folder.
        cohorts: cohorts on disk, one a site, each as `data` of a site.yaml and a name.
        leave_out: sites of `phantom` that take no part.
        copies: simulated sites per cohort, called `<cohort>-0001` and so on, for tests of scale: same cases, other random draws.
        device: of the sites; `auto` is CUDA where present, else CPU.
        threads: CPU threads of a site's training. The weights of a run depend on it in their last bits.
    """

    federation: Annotated[FederationConfig, _or_file(FederationConfig)] = FederationConfig()
    phantom: Annotated[PhantomSpec | None, _or_file(PhantomSpec)] = None
    cohorts: tuple[CohortConfig, ...] = ()
    leave_out: tuple[str, ...] = ()
    copies: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1

    @model_validator(mode="after")
    def _sites_exist(self) -> "SimulationConfig":
        if (self.phantom is None) == (not self.cohorts):
            raise ValueError("name either `phantom` or `cohorts`")
        names = [site.name for site in (self.phantom.sites if self.phantom else self.cohorts)]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"several cohorts are called {', '.join(twice)}")
        if unknown := sorted(set(self.leave_out) - set(names)):
            raise ValueError(f"leave_out names {', '.join(unknown)}, which is none of {', '.join(names)}")
        sites = len(self.site_names)
        if sites < self.federation.quorum.sites:
            raise ValueError(f"federation.quorum.sites is {self.federation.quorum.sites}, but the simulation has {sites} sites")
        if long := [name for name in self.site_names if len(name) > _LONGEST_NAME]:
            raise ValueError(f"{long[0]} is longer than {_LONGEST_NAME} characters")
        return self

    @property
    def cohort_names(self) -> tuple[str, ...]:
        """The cohorts that take part."""
        every = self.phantom.sites if self.phantom else self.cohorts
        return tuple(cohort.name for cohort in every if cohort.name not in self.leave_out)

    @property
    def site_names(self) -> dict[str, str]:
        """The cohort of every simulated site, by the site's name."""
        if self.copies == 1:
            return {name: name for name in self.cohort_names}
        return {f"{name}-{number:04d}": name for name in self.cohort_names for number in range(1, self.copies + 1)}
