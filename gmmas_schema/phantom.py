"""Specification of phantom cohorts: synthetic glioma patients, hospital by hospital (`gmmas phantom make SPEC OUT`)."""

from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from gmmas_schema.base import FrozenModel, HeldModalities
from gmmas_schema.vocabulary import MODALITIES, REQUIRED_TASKS, SUBTYPES, TASKS, Layout, Subtype, Task


class ScannerConfig(FrozenModel):
    """How a hospital's scanner renders tissue.

    Attributes:
        spin_echo: T1 weighting from 0 (inversion-prepared 3D gradient echo, strong grey-white contrast) to 1 (2D spin echo, flat).
        t2_weighting: strength of T2 contrast; 1 is a usual turbo spin echo at 3 T.
        enhancement: strength of gadolinium enhancement; 1 is usual.
        noise: standard deviation of complex noise, as a share of white matter's signal.
        bias: peak log-amplitude of the receive field.
        thickness_mm: slice thickness; 3D sequences have about 1 mm.
        axis: through-slice direction: 0 sagittal, 1 coronal, 2 axial.
        volumetric_t1ce: probability that T1ce is a 3D sequence although the others are 2D.
        ghosting: probability of a motion ghost per image.
    """

    spin_echo: float = Field(default=0.3, ge=0, le=1)
    t2_weighting: float = Field(default=1.0, ge=0.3, le=2)
    enhancement: float = Field(default=1.0, ge=0, le=2)
    noise: float = Field(default=0.025, ge=0, le=0.3)
    bias: float = Field(default=0.18, ge=0, le=1)
    thickness_mm: float = Field(default=1.0, gt=0, le=10)
    axis: Literal[0, 1, 2] = 2
    volumetric_t1ce: float = Field(default=0.5, ge=0, le=1)
    ghosting: float = Field(default=0.1, ge=0, le=1)


SCANNERS = MappingProxyType(
    {
        "research-3t": ScannerConfig(spin_echo=0.05, noise=0.018, thickness_mm=1.0, axis=0, ghosting=0.05),
        "clinical-3t": ScannerConfig(spin_echo=0.45, t2_weighting=1.1, enhancement=1.1, noise=0.022, bias=0.30, thickness_mm=4.0),
        "clinical-1.5t": ScannerConfig(spin_echo=0.70, t2_weighting=0.85, enhancement=0.85, noise=0.030, bias=0.12, thickness_mm=5.0),
        "old-1.5t": ScannerConfig(
            spin_echo=0.90, t2_weighting=0.75, enhancement=0.75, noise=0.045, bias=0.15, thickness_mm=6.0, ghosting=0.2
        ),
        "mixed-3t": ScannerConfig(spin_echo=0.20, t2_weighting=1.2, enhancement=1.15, noise=0.015, bias=0.25, thickness_mm=1.5, axis=1),
    }
)
"""Named scanners. They differ as hospitals do: in weighting, resolution, noise and shading."""


def _preset(value: Any) -> Any:
    """Replace the name of a preset by its parameters."""
    if not isinstance(value, str):
        return value
    if value not in SCANNERS:
        raise ValueError(f"unknown scanner; presets are {', '.join(SCANNERS)}")
    return SCANNERS[value]


def _positive_sum(value: dict[Subtype, float]) -> dict[Subtype, float]:
    """Refuse a mix without any case; order and complete the keys."""
    if sum(value.values()) <= 0:
        raise ValueError("the case mix needs one weight above 0")
    return {s: float(value.get(s, 0.0)) for s in SUBTYPES}


Share = Annotated[float, Field(ge=0, le=1)]
CaseMix = Annotated[dict[Subtype, Annotated[float, Field(ge=0)]], AfterValidator(_positive_sum)]


class PhantomSite(FrozenModel):
    """One hospital's cohort.

    Attributes:
        name: folder and site name; part of every patient identifier.
        cases: patients, one scan each.
        scanner: name of a preset in SCANNERS, or its parameters.
        modalities: sequences written to disk.
        labelled: share of the patients that carry a label, per task; a task that is not named is labelled for all. A grade tells of
            molecular status, so it is published with IDH and 1p/19q only. MGMT has no sign in a phantom, and no label.
        mix: relative weight of each subtype; the counts are the nearest whole numbers.
        layout: naming convention of the files.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    cases: PositiveInt = Field(le=9999)
    scanner: Annotated[ScannerConfig, BeforeValidator(_preset)]
    modalities: HeldModalities = MODALITIES
    labelled: dict[Task, Share] = {}
    mix: CaseMix = Field(default_factory=lambda: {Subtype.GLIOBLASTOMA: 0.5, Subtype.ASTROCYTOMA: 0.28, Subtype.OLIGODENDROGLIOMA: 0.22})
    layout: Literal[Layout.BRATS2021, Layout.BRATS2023] = Layout.BRATS2021

    @field_validator("labelled")
    @classmethod
    def _every_task(cls, value: dict[Task, float]) -> dict[Task, float]:
        if Task.MGMT in value:
            raise ValueError("phantoms show no sign of MGMT, so they have no label of it")
        return {t: value.get(t, 1.0) for t in TASKS if t in REQUIRED_TASKS or t in value}


class PhantomSpec(FrozenModel):
    """Cohorts to make. The same specification and software version give bit-identical files on the same machine.

    Attributes:
        seed: root of all randomness; a case depends on (seed, site name, index) alone.
        spacing_mm: isotropic voxel size.
        sites: the hospitals.
    """

    seed: int = Field(default=0, ge=0)
    spacing_mm: PositiveFloat = Field(default=2.0, ge=1.0, le=4.0)
    sites: tuple[PhantomSite, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> "PhantomSpec":
        names = [site.name for site in self.sites]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sites have the same name: {', '.join(twice)}")
        return self


class PhantomCounts(FrozenModel):
    """What a finished site holds, in patients."""

    cases: int = Field(ge=0)
    subtypes: dict[Subtype, int]
    labelled: dict[Task, int]


class PhantomManifest(FrozenModel):
    """The file phantom.json beside the cohorts: what they were made from, and whether they are whole.

    Attributes:
        spec_digest: digest of `spec`; a different specification is never written into the same folder.
        generator: version of the generator's arithmetic; cohorts of two versions are never mixed.
        complete: False until every case of every site is there.
    """

    spec_digest: str
    generator: int
    software: str
    complete: bool
    spec: PhantomSpec
    sites: dict[str, PhantomCounts]
    notice: str
