"""What is compared: the common run, the arms, and how an arm's changes make the experiment of one seed."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from gmmas_data.phantom.cohorts import GENERATOR_VERSION
from gmmas_data.preprocessing import PREPROCESSING_VERSION
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSite, PhantomSpec
from gmmas_schema.site import SplitConfig

FOLDER = Path(__file__).parent
DEADLINE_S = 7 * 86400.0
"""Sites of one process answer one after the other, on a machine that may be busy: no round is to fail for its time."""
ONLY_A_FEDERATION = ("strategy", "server_step")
"""Keys of the configuration that mean nothing where all cases are in one place; an arm of that kind leaves them at their defaults."""
NOBODY_TO_LEAVE_IT_TO = {"backbone": "any", "enhancing_needs_t1ce": "never"}
"""Training where all cases are in one place, as in the demo's baselines: every label trains whatever it can. A hospital alone that left
the enhancing tumour to those with T1ce would never learn it."""


class Arm(FrozenModel):
    """One row of the table.

    Attributes:
        name: of the arm, its folder and its files.
        piece: part of the method that it belongs to; rows of a piece stand together.
        note: what the arm is, for readers of the table.
        kind: `federated` runs the rounds of a federation; `pooled` trains on the cases of all participants in one place, with as many
            steps a round as those of them with labels make together, so that unlabelled cases bring no steps of their own. One participant
            alone is `pooled` with that one.
        participants: training hospitals that take part: all, those with any label, or by name.
        drawn: share of each hospital's training patients whose tumour counts as drawn, at least one where any is; the outlines of the
            others are taken away, their molecular results are not.
        zero_fill: absent sequences are shown to the network as present and zero, in training and in testing.
        scramble_anchors: every site receives anchors in directions of chance: as many, as large, and without meaning. If the adapter's
            gain stays, it is not due to what the anchors say.
        surfaces: segmentations are compared by HD95 too, which takes longer than their Dice.
        compare_with: arm that this one is compared with, instead of the plan's reference.
        changes: to the common federation; nested, or with dotted keys (`training.learning_rate`). A part with another `kind` replaces
            the common one as a whole.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    piece: str
    note: str = ""
    kind: Literal["federated", "pooled"] = "federated"
    participants: Literal["all", "labelled"] | tuple[str, ...] = "all"
    drawn: float = Field(default=1.0, gt=0, le=1)
    zero_fill: bool = False
    scramble_anchors: bool = False
    surfaces: bool = False
    compare_with: str | None = None
    changes: dict[str, Any] = Field(default_factory=dict)


class Experiment(FrozenModel):
    """All that decides the result of one arm with one seed, but for the software.

    Attributes:
        participants: by name.
        cohorts: digest of the phantoms' specification, and the versions of what makes them and their samples.
    """

    arm: str
    seed: int
    kind: Literal["federated", "pooled"]
    participants: tuple[str, ...]
    drawn: float = 1.0
    zero_fill: bool
    scramble_anchors: bool
    surfaces: bool = False
    split: SplitConfig
    cohorts: str
    federation: FederationConfig

    @property
    def steps(self) -> int:
        """Return the optimiser steps of the whole run, over all sites."""
        nodes = len(self.participants) if self.kind == "federated" else 1
        return self.federation.rounds * self.federation.training.local_steps * nodes

    def same_training(self, other: "Experiment") -> bool:
        """Tell whether another experiment trains the very same thing, whatever it is called and however it is looked at."""
        mine, others = (each.model_copy(update={"arm": "", "surfaces": False}) for each in (self, other))
        return mine == others


class ArmsFile(FrozenModel):
    """Contents of arms.yaml.

    Attributes:
        seeds: each has its own patients and its own initialisation.
        more_seeds: for the arms of `many` alone, whose differences are too small for those of `seeds`.
        many: names of these arms.
        reference: arm that the others are compared with.
        upper_bound: arm that the ratio is taken to.
        main: arms that are run where none are named.
        development: held-out hospital that choices are made on.
        test: held-out hospital that is looked at in the final table only.
        split: of the patients of each training hospital.
        federation: the run of every arm, but for its changes.
        arms: the rows.
    """

    seeds: tuple[PositiveInt, ...] = Field(min_length=1)
    more_seeds: tuple[PositiveInt, ...] = ()
    many: tuple[str, ...] = ()
    reference: str
    upper_bound: str
    main: tuple[str, ...]
    development: str
    test: str
    split: SplitConfig
    federation: FederationConfig
    arms: tuple[Arm, ...] = Field(min_length=1)


class LearningPlan(ArmsFile):
    """The benchmark: arms.yaml and phantoms.yaml.

    Attributes:
        phantoms: the hospitals; their seed is that of the experiment.
    """

    phantoms: PhantomSpec

    @model_validator(mode="after")
    def _names_are_known(self) -> "LearningPlan":
        names = [arm.name for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arms have the same name: {', '.join(twice)}")
        sites = {site.name for site in self.phantoms.sites}
        needed = {self.reference, self.upper_bound, *self.main, *self.many} - set(names) | {self.development, self.test} - sites
        needed |= {arm.compare_with for arm in self.arms if arm.compare_with is not None} - set(names)
        needed |= {name for arm in self.arms if not isinstance(arm.participants, str) for name in arm.participants} - sites
        if needed:
            raise ValueError(f"not among the arms or hospitals: {', '.join(sorted(needed))}")
        return self

    @classmethod
    def read(cls, folder: Path = FOLDER) -> "LearningPlan":
        """Read the two files.

        Raises:
            ConfigError: one is missing or wrong; an arm does not fit the federation; or two arms are the same experiment.
        """
        phantoms = PhantomSpec.from_yaml(folder / "phantoms.yaml")
        arms = ArmsFile.from_yaml(folder / "arms.yaml")
        values = {name: getattr(arms, name) for name in type(arms).model_fields}
        plan = cls.parse(values | {"phantoms": phantoms}, where=folder / "arms.yaml")
        plan.check()
        return plan

    def check(self) -> None:
        """Refuse arms whose changes do not fit, and arms that are one experiment under two names, for a table must not show both."""
        experiments: list[Experiment] = []
        for arm in self.arms:
            found = self.experiment(arm, self.seeds[0])
            if same := next((other.arm for other in experiments if other.same_training(found)), None):
                raise ConfigError(
                    "two arms are the same experiment",
                    where=f"arm {arm.name}",
                    got=f"what {same} is",
                    expected="a difference",
                    remedy="drop one of them, or change what it changes",
                )
            experiments.append(found)

    def arm(self, name: str) -> Arm:
        """Return an arm by its name."""
        found = next((arm for arm in self.arms if arm.name == name), None)
        if found is None:
            expected = ", ".join(arm.name for arm in self.arms)
            raise ConfigError("there is no such arm", where="arms.yaml", got=name, expected=expected, remedy="name one of these")
        return found

    @property
    def runs(self) -> tuple[tuple[Arm, int], ...]:
        """Return every arm with each of its seeds, seed by seed."""
        every = tuple(dict.fromkeys((*self.seeds, *self.more_seeds)))
        return tuple((arm, seed) for seed in every for arm in self.arms if seed in self.seeds or arm.name in self.many)

    @property
    def held_out(self) -> tuple[str, str]:
        """Return the hospitals that never train."""
        return self.development, self.test

    @property
    def training_sites(self) -> tuple[PhantomSite, ...]:
        """Return the hospitals that may train."""
        return tuple(site for site in self.phantoms.sites if site.name not in self.held_out)

    def phantoms_of(self, seed: int) -> PhantomSpec:
        """Return the specification of one seed's patients."""
        return self.phantoms.model_copy(update={"seed": seed})

    def experiment(self, arm: Arm, seed: int) -> Experiment:
        """Return what an arm is with one seed.

        Raises:
            ConfigError: its changes do not fit the federation.
        """
        participants = self._participants(arm)
        nodes = len(participants) if arm.kind == "federated" else 1
        raw = merge(self.federation.model_dump(mode="json"), nested(arm.changes))
        raw |= {"name": "bench-learning", "seed": seed}
        raw["quorum"] = {"sites": nodes, "replies": nodes, "join_deadline_s": DEADLINE_S, "round_deadline_s": DEADLINE_S}
        if arm.kind == "pooled":
            raw = {key: value for key, value in raw.items() if key not in ONLY_A_FEDERATION} | {"strategy": {"kind": "fedavg"}}
            raw["training"]["local_steps"] *= max(1, len(set(participants) & set(self._labelled)))
            raw["training"] |= NOBODY_TO_LEAVE_IT_TO
        return Experiment(
            arm=arm.name,
            seed=seed,
            kind=arm.kind,
            participants=participants,
            drawn=arm.drawn,
            zero_fill=arm.zero_fill,
            scramble_anchors=arm.scramble_anchors,
            surfaces=arm.surfaces,
            split=self.split,
            cohorts=f"{self.phantoms_of(seed).digest()} {GENERATOR_VERSION} {PREPROCESSING_VERSION}",
            federation=FederationConfig.parse(raw, where=f"arm {arm.name}"),
        )

    def _participants(self, arm: Arm) -> tuple[str, ...]:
        sites = self.training_sites
        if arm.participants == "all":
            return tuple(site.name for site in sites)
        if arm.participants == "labelled":
            return self._labelled
        return tuple(site.name for site in sites if site.name in arm.participants)

    @property
    def _labelled(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.training_sites if any(share > 0 for share in site.labelled.values()))


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes with their dotted keys as nested mappings."""
    result: dict[str, Any] = {}
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        inner = {rest: value} if rest else value
        found = nested(inner) if isinstance(inner, Mapping) else inner
        both = isinstance(found, dict) and isinstance(result.get(first), dict)
        result[first] = merge(result[first], found) if both else found
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` put over it, mapping by mapping; one with another `kind` replaces the old one."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("kind", old.get("kind")) == old.get("kind"):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def pick(plan: LearningPlan, *, arms: Collection[str] = (), seeds: Collection[int] = ()) -> LearningPlan:
    """Return the plan with these arms (always with the reference, and what they are compared with) and seeds only; none named is all.

    Seeds that are named are those of every arm.

    Raises:
        ConfigError: there is no such arm.
    """
    named, left = {plan.reference}, list(arms)
    while left:
        arm = plan.arm(left.pop())
        named.add(arm.name)
        left += [arm.compare_with] if arm.compare_with is not None else []
    kept = tuple(arm for arm in plan.arms if not arms or arm.name in named)
    chosen = {"seeds": tuple(seeds), "more_seeds": ()} if seeds else {}
    return plan.model_copy(update={"arms": kept, **chosen})
