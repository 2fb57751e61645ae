"""One phantom patient from beginning to end: head, tumour, mass effect, compartments, images.

Every stage draws from a random stream of its own, spawned from the case's seed. So a sequence that is not held does not change the others.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmmas_data.phantom.acquisition import acquire, quantise
from gmmas_data.phantom.anatomy import COARSE, coarse_tissue, draw_head, draw_sulci, fine_tissue, pull_volumes
from gmmas_data.phantom.atlas import BOX_HIGH_MM, BOX_LOW_MM, Atlas
from gmmas_data.phantom.contrast import Scene, draw_contrast, render
from gmmas_data.phantom.fields import Grid, Volume, random_field, resample, smoothstep
from gmmas_data.phantom.growth import grow, push_of
from gmmas_data.phantom.lesion import draw_lesion
from gmmas_data.phantom.subjects import Signs, Subject, draw_signs, draw_subject
from gmmas_data.phantom.vessels import draw_vessels
from gmmas_schema.phantom import ScannerConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Subtype


@dataclass(frozen=True)
class PhantomCase:
    """A made patient.

    Attributes:
        subject: what pathology would report.
        signs: how the tumour was grown.
        images: one volume per sequence held, arbitrary units, 0 outside the brain.
        labels_XYZ: our label map (gmmas_schema.vocabulary).
        grid: grid of images and labels, RAS+.
    """

    subject: Subject
    signs: Signs
    images: Mapping[Modality, NDArray[np.int16]]
    labels_XYZ: NDArray[np.uint8]
    grid: Grid


def make_case(
    seed: np.random.SeedSequence,
    *,
    atlas: Atlas,
    subtype: Subtype,
    scanner: ScannerConfig,
    spacing_mm: float,
    modalities: Collection[Modality] = MODALITIES,
) -> PhantomCase:
    """Make one patient. The result depends on the arguments alone; `modalities` decides only which images are rendered."""
    heads, tumours, lesions, healthy, vessel, *sequences = _streams(seed)[1:]
    grid = Grid.covering(BOX_LOW_MM, BOX_HIGH_MM, spacing_mm)
    subject, signs = draw_patient(seed, subtype)

    # 1. head and tumour on the coarse grid; the tumour pushes the head's tissue aside
    head = draw_head(heads)
    tissue, depth_mm, ventricle = coarse_tissue(atlas, head)
    growth = grow(tumours, tissue, depth_mm, signs)
    widening = max(0.0, 0.03 * (subject.age_years - 35) + 0.35 * float(heads.standard_normal()))
    head = head.pushed_by(push_of(growth, tissue, depth_mm, ventricle, expansion=signs.expansion, atrophy=widening))

    # 2. anatomy at full resolution, interpolated once
    fine_depth_mm = resample(depth_mm, source=COARSE, target=grid)
    inside = fine_depth_mm > 0
    volumes = [atlas.grey_XYZ, atlas.white_XYZ, atlas.residual_XYZ, atlas.ventricle_XYZ]
    grey, white, residual, near_ventricle = pull_volumes(atlas, volumes, head.sources_mm(grid), inside)
    sulci = draw_sulci(healthy, grid)
    fine = fine_tissue(grey, white, fine_depth_mm, sulci, age_years=subject.age_years)

    # 3. compartments, and what else is bright
    lesion = draw_lesion(lesions, growth, fine, signs, grid)
    scene = Scene(
        tissue=fine,
        residual_XYZ=residual,
        white_lesions_XYZ=_white_lesions(healthy, near_ventricle, fine.white_XYZ, subject.age_years, grid),
        cortex_XYZ=sulci.balance_XYZ,
        lesion=lesion,
        vessels=draw_vessels(vessel, head, depth_mm, grid),
        texture_XYZ=random_field(healthy, grid, length_mm=3, octaves=2),
        heterogeneity=signs.heterogeneity,
    )

    # 4. one image per sequence
    images = {}
    for modality, rng in zip(MODALITIES, sequences, strict=True):
        if modality in modalities:
            ideal = render(scene, draw_contrast(rng, modality, scanner), modality, scanner)
            images[modality] = quantise(acquire(rng, ideal, modality, scanner, grid), inside)
    return PhantomCase(subject, signs, images, lesion.labels(inside), grid)


def draw_patient(seed: np.random.SeedSequence, subtype: Subtype) -> tuple[Subject, Signs]:
    """Return who the patient of this seed is and what the tumour shows, without making the images."""
    rng = _streams(seed)[0]
    subject = draw_subject(rng, subtype)
    return subject, draw_signs(rng, subject)


def _streams(seed: np.random.SeedSequence) -> list[np.random.Generator]:
    """Return the case's random streams: patient, head, tumour, lesion, healthy tissue, vessels, then one per sequence."""
    # A fresh copy, because spawn() counts and the caller may come again.
    root = np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)
    return [np.random.Generator(np.random.PCG64(child)) for child in root.spawn(6 + len(MODALITIES))]


def _white_lesions(rng: np.random.Generator, ventricle_XYZ: Volume, white_XYZ: Volume, age_years: float, grid: Grid) -> Volume:
    """Return the share of white matter hyperintensity: caps around the ventricles and dots that come with age."""
    load = float(np.clip(0.25 + 0.018 * (age_years - 50) + 0.25 * rng.standard_normal(), 0, 1.2))
    spots = random_field(rng, grid, length_mm=4)
    caps = smoothstep(ventricle_XYZ * load, 0.06, 0.30)
    dots = smoothstep(spots, 3.1 - 0.8 * load, 3.5 - 0.8 * load)
    return np.asarray(np.maximum(caps, dots) * white_XYZ**2 * min(load, 1.0), dtype=np.float32)
