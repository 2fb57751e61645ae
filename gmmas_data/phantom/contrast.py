"""Signal of each tissue in each sequence, relative to white matter, before the scanner adds its faults.

The table follows four real gliomas and three patients with multiple sclerosis; a scanner moves it between inversion-prepared and
spin-echo T1 and between weak and strong T2 weighting, and every patient varies around it.
"""

from dataclasses import dataclass

import numpy as np

from gmmas_data.phantom.anatomy import Tissue
from gmmas_data.phantom.fields import Volume
from gmmas_data.phantom.lesion import Lesion
from gmmas_data.phantom.vessels import Vessels
from gmmas_schema.phantom import ScannerConfig
from gmmas_schema.vocabulary import Modality

SPREAD = {
    Modality.T1: (0.03, 0.08, 0.04, 0.06, 0.08, 0.06),
    Modality.T1CE: (0.03, 0.08, 0.04, 0.06, 0.08, 0.12),
    Modality.T2: (0.04, 0.08, 0.08, 0.10, 0.12, 0.10),
    Modality.FLAIR: (0.03, 0.12, 0.12, 0.11, 0.20, 0.11),
}
"""Relative standard deviation between patients, in the order of Contrast."""


@dataclass(frozen=True)
class Contrast:
    """Mean signals of one sequence in one patient; white matter is 1."""

    grey: float
    csf: float
    oedema: float
    solid: float
    necrosis: float
    enhancing: float


@dataclass(frozen=True)
class Scene:
    """Everything that gives signal in one patient's head, on the grid of the images.

    Attributes:
        tissue: healthy tissue.
        residual_XYZ: T1 of deep nuclei and brain stem beyond the three tissues.
        white_lesions_XYZ: share of age-related white matter hyperintensity.
        cortex_XYZ: variation of grey matter in T2 and FLAIR, variance 1: the limbic cortex is brighter than the rest.
        lesion: the tumour.
        vessels: what else enhances.
        texture_XYZ: slight variation of healthy signal, variance 1.
        heterogeneity: amplitude of texture inside the tumour.
    """

    tissue: Tissue
    residual_XYZ: Volume
    white_lesions_XYZ: Volume
    cortex_XYZ: Volume
    lesion: Lesion
    vessels: Vessels
    texture_XYZ: Volume
    heterogeneity: float


def draw_contrast(rng: np.random.Generator, modality: Modality, scanner: ScannerConfig) -> Contrast:
    """Draw one patient's mean signals in one sequence."""
    means = _means(modality, scanner)
    return Contrast(*(mean * (1 + spread * rng.standard_normal()) for mean, spread in zip(means, SPREAD[modality], strict=True)))


def _means(modality: Modality, scanner: ScannerConfig) -> tuple[float, ...]:
    """Return the mean signals of this scanner, in the order of Contrast."""
    spin, t2, gadolinium = scanner.spin_echo, scanner.t2_weighting, scanner.enhancement
    match modality:
        case Modality.T1:
            return (0.68 + 0.25 * spin, 0.24 + 0.42 * spin, 0.76 + 0.16 * spin, 0.62 + 0.20 * spin, 0.48 + 0.35 * spin, 0.75 + 0.20 * spin)
        case Modality.T1CE:
            enhanced = 1.15 + 0.60 * gadolinium
            return (0.74 + 0.20 * spin, 0.25 + 0.42 * spin, 0.76 + 0.14 * spin, 0.63 + 0.20 * spin, 0.52 + 0.25 * spin, enhanced)
        case Modality.T2:
            return (1 + 0.38 * t2, 1.2 + 1.6 * t2, 1.15 + 0.75 * t2, 1.2 + 0.95 * t2, 1.2 + 1.25 * t2, 1.1 + 0.75 * t2)
        case Modality.FLAIR:
            return (1.20, 0.50, 1.72, 1.58, 1.35, 1.58)


def render(scene: Scene, contrast: Contrast, modality: Modality, scanner: ScannerConfig) -> Volume:
    """Return the noise-free image of one sequence; white matter is 1."""
    tissue, lesion = scene.tissue, scene.lesion
    image = tissue.csf_XYZ * np.float32(contrast.csf) + tissue.grey_XYZ * np.float32(contrast.grey) + tissue.white_XYZ
    t1_weighted = modality in (Modality.T1, Modality.T1CE)
    image += scene.residual_XYZ * np.float32(0.8 * (1 - scanner.spin_echo) if t1_weighted else -0.3)
    if not t1_weighted:
        image += tissue.grey_XYZ * scene.cortex_XYZ * np.float32(0.08)
        image += scene.white_lesions_XYZ * np.float32(0.6 * (contrast.oedema - 1))
    vessel = scene.vessels.blood_XYZ + scene.vessels.plexus_XYZ * np.float32(0.9)
    if modality is Modality.T1CE:
        image += vessel * (np.float32(0.75 * contrast.enhancing) - 0.4 * image)
    elif modality is Modality.T2:
        image *= 1 - 0.45 * scene.vessels.blood_XYZ

    image *= 1 + np.float32(0.022) * scene.texture_XYZ
    solid = np.float32(contrast.solid) + np.zeros_like(image)
    if modality is Modality.FLAIR:
        solid -= lesion.suppressed_XYZ * np.float32(contrast.solid - 0.80)
    elif modality is Modality.T2:
        solid += lesion.suppressed_XYZ * np.float32(0.2 * scanner.t2_weighting)
    # Oedema lets the anatomy shine through; the core replaces it.
    tumour = lesion.solid_XYZ * solid
    tumour += lesion.necrosis_XYZ * np.float32(contrast.necrosis)
    tumour += lesion.enhancing_XYZ * np.float32(contrast.enhancing)
    tumour += lesion.oedema_XYZ * (0.35 * image + np.float32(0.65 * contrast.oedema))
    total = lesion.total()
    amplitude = scene.heterogeneity * (0.6 if t1_weighted else 1.0)
    image = image * (1 - total) + tumour * (1 + np.float32(amplitude) * lesion.texture_XYZ)
    calcium = {Modality.T1: -0.15, Modality.T1CE: -0.10, Modality.T2: 0.62, Modality.FLAIR: 0.60}[modality]
    return np.asarray(image * (1 - np.float32(calcium) * lesion.calcified_XYZ), dtype=np.float32)
