"""Who the phantom patient is, and which signs the tumour will show.

Signs lean to a subtype and overlap on purpose, because they do so in patients: ring enhancement, necrosis and age speak for
IDH-wildtype glioblastoma; T2-FLAIR mismatch for IDH-mutant astrocytoma (Patel et al., Clin Cancer Res 2017); a frontal, cortical,
calcified tumour with indistinct margin for 1p/19q-codeleted oligodendroglioma (Johnson et al., RadioGraphics 2017). Grades and names
follow WHO CNS5.
"""

from dataclasses import dataclass

import numpy as np

from gmmas_schema.vocabulary import Subtype

GLIOBLASTOMA, ASTROCYTOMA, OLIGODENDROGLIOMA = Subtype.GLIOBLASTOMA, Subtype.ASTROCYTOMA, Subtype.OLIGODENDROGLIOMA


@dataclass(frozen=True)
class Subject:
    """One patient: what pathology would report."""

    subtype: Subtype
    grade: int
    age_years: int
    sex: str

    @property
    def idh_mutant(self) -> bool:
        """Whether IDH is mutated: in all but glioblastoma."""
        return self.subtype is not GLIOBLASTOMA

    @property
    def codeleted(self) -> bool:
        """Whether 1p/19q is codeleted: in oligodendroglioma alone."""
        return self.subtype is OLIGODENDROGLIOMA


@dataclass(frozen=True)
class Signs:
    """How the tumour grows and looks.

    Attributes:
        core_ml: volume of the tumour core at which growth stops.
        oedema_ratio: volume of the whole tumour over that of the core.
        width_mm: width of the invasion front, sqrt(D / rho).
        white_preference: diffusion in white over that in grey matter.
        irregularity: log-amplitude of local diffusion; makes the outline lobed.
        margin_mm: half width of the core's edge; large is indistinct.
        cortical: 0 keeps the seed deep, 1 draws it to the cortex.
        lobes: weights of frontal, temporal, parietal, occipital and insular origin.
        expansion: volume by which tissue is displaced, over that of the tumour.
        foci: centres of growth.
        ring_mm: thickness of an enhancing rim around necrosis; 0 is none.
        ring_gaps: 0 is a closed rim, 1 a broken one.
        patches: share of the core that enhances in patches, and how strongly (1 is like a ring).
        mismatch: depth of FLAIR suppression inside the core, 0 to 1.
        calcification: share of the core that is calcified.
        heterogeneity: amplitude of texture inside the tumour.
    """

    core_ml: float
    oedema_ratio: float
    width_mm: float
    white_preference: float
    irregularity: float
    margin_mm: float
    cortical: float
    lobes: tuple[float, float, float, float, float]
    expansion: float
    foci: int
    ring_mm: float
    ring_gaps: float
    patches: float
    patch_strength: float
    mismatch: float
    calcification: float
    heterogeneity: float


def draw_subject(rng: np.random.Generator, subtype: Subtype) -> Subject:
    """Draw grade, age and sex of a patient with this subtype."""
    match subtype:
        case Subtype.GLIOBLASTOMA:
            grade, age = 4, rng.normal(59, 12)
        case Subtype.ASTROCYTOMA:
            grade = int(rng.choice([2, 3, 4], p=[0.40, 0.35, 0.25]))
            age = rng.normal(39 + 3 * (grade - 2), 12)
        case Subtype.OLIGODENDROGLIOMA:
            grade = int(rng.choice([2, 3], p=[0.6, 0.4]))
            age = rng.normal(45 + 3 * (grade - 2), 12)
    return Subject(subtype, grade, int(np.clip(round(age), 18, 88)), str(rng.choice(["male", "female"], p=[0.58, 0.42])))


def draw_signs(rng: np.random.Generator, subject: Subject) -> Signs:
    """Draw the tumour's signs from the distributions of the subject's subtype and grade."""
    match subject.subtype:
        case Subtype.GLIOBLASTOMA:
            return _glioblastoma(rng)
        case Subtype.ASTROCYTOMA:
            return _astrocytoma(rng, subject.grade)
        case Subtype.OLIGODENDROGLIOMA:
            return _oligodendroglioma(rng, subject.grade)


def _volume_ml(rng: np.random.Generator, median: float) -> float:
    return float(np.clip(median * np.exp(0.55 * rng.standard_normal()), 6, 95))


def _glioblastoma(rng: np.random.Generator) -> Signs:
    """Ring enhancement around necrosis in three of four; the fourth is diffuse, as molecular glioblastoma is."""
    ring = rng.random() < 0.77
    return Signs(
        core_ml=_volume_ml(rng, 30),
        oedema_ratio=float(1.25 + rng.gamma(2.0, 0.60)),
        width_mm=float(rng.uniform(2.0, 3.4)),
        white_preference=float(rng.uniform(4, 9)),
        irregularity=1.0,
        margin_mm=float(rng.uniform(0.8, 2.5)),
        cortical=float(rng.beta(1.3, 2.6)),
        lobes=(0.33, 0.29, 0.22, 0.07, 0.09),
        expansion=float(rng.uniform(0.5, 1.5)),
        foci=int(rng.choice([1, 2, 3], p=[0.82, 0.13, 0.05])),
        ring_mm=float(rng.uniform(2.8, 6.5)) if ring else 0.0,
        ring_gaps=float(rng.beta(1.3, 3)),
        patches=0.0 if ring or rng.random() < 0.45 else float(rng.uniform(0.08, 0.35)),
        patch_strength=float(rng.uniform(0.5, 1.0)),
        mismatch=float(rng.uniform(0.4, 0.8)) if not ring and rng.random() < 0.15 else 0.0,
        calcification=0.03 if rng.random() < 0.06 else 0.0,
        heterogeneity=0.10 * float(np.exp(0.35 * rng.standard_normal())),
    )


def _astrocytoma(rng: np.random.Generator, grade: int) -> Signs:
    """Homogeneous and well defined, often with T2-FLAIR mismatch; grade 4 may look like glioblastoma."""
    mismatch = rng.random() < {2: 0.50, 3: 0.36, 4: 0.15}[grade]
    ring = rng.random() < {2: 0.0, 3: 0.08, 4: 0.6}[grade]
    enhancing = rng.random() < {2: 0.12, 3: 0.40, 4: 0.85}[grade]
    return Signs(
        core_ml=_volume_ml(rng, 38),
        oedema_ratio=float(1.2 + rng.gamma(1.6, 0.32) + 0.35 * (grade == 4)),
        width_mm=float(rng.uniform(2.2, 3.6)),
        white_preference=float(rng.uniform(3, 7)),
        irregularity=0.85,
        margin_mm=float(rng.uniform(0.8, 3.3)),
        cortical=float(rng.beta(1.7, 1.9)),
        lobes=(0.47, 0.23, 0.13, 0.03, 0.14),
        expansion=float(rng.uniform(0.4, 1.2)),
        foci=1,
        ring_mm=float(rng.uniform(2.8, 7.0)) if ring else 0.0,
        ring_gaps=float(rng.beta(2, 2)),
        patches=float(rng.uniform(0.05, 0.22)) if enhancing and not ring else 0.0,
        patch_strength=float(rng.uniform(0.45, 1.0)),
        mismatch=float(rng.uniform(0.55, 1.0)) if mismatch else 0.0,
        calcification=float(rng.uniform(0.02, 0.06)) if rng.random() < 0.15 else 0.0,
        heterogeneity=0.085 * float(np.exp(0.35 * rng.standard_normal())),
    )


def _oligodendroglioma(rng: np.random.Generator, grade: int) -> Signs:
    """Cortical, mostly frontal, indistinct, often calcified, with patchy enhancement."""
    enhancing = rng.random() < {2: 0.25, 3: 0.60}[grade]
    return Signs(
        core_ml=_volume_ml(rng, 34),
        oedema_ratio=float(1.2 + rng.gamma(1.6, 0.32)),
        width_mm=float(rng.uniform(2.4, 4.2)),
        white_preference=float(rng.uniform(1.8, 5)),
        irregularity=1.0,
        margin_mm=float(rng.uniform(1.0, 4.2)),
        cortical=float(rng.beta(2.3, 1.6)),
        lobes=(0.55, 0.19, 0.14, 0.03, 0.09),
        expansion=float(rng.uniform(0.2, 0.9)),
        foci=1,
        ring_mm=float(rng.uniform(3, 7)) if grade == 3 and rng.random() < 0.08 else 0.0,
        ring_gaps=float(rng.beta(2, 2)),
        patches=float(rng.uniform(0.05, 0.25)) if enhancing else 0.0,
        patch_strength=float(rng.uniform(0.4, 0.95)),
        mismatch=float(rng.uniform(0.3, 0.8)) if rng.random() < 0.15 else 0.0,
        calcification=float(rng.uniform(0.02, 0.08)) if rng.random() < 0.42 else 0.0,
        heterogeneity=0.100 * float(np.exp(0.35 * rng.standard_normal())),
    )
