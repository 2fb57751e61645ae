"""The identifiers of all facts that an analysis can hold; reports, exports and tests name facts by these constants.

Sources (Fact.source): `segmentation` facts are measured on the mask of the record's version, `network` facts are predicted, `file` facts
are read from the images, `clinician` facts were entered. A measure that could not be taken is there with status ABSENT and the reason.
Facts of optional heads, of Monte-Carlo passes, of further lobes and of what was entered are left out where there is none.
"""

from typing import Final

from gmmas_schema.vocabulary import Region, Subtype, Task

VOLUME_WT: Final = "volume.wt"
"""Whole tumour, ml."""

VOLUME_TC: Final = "volume.tc"
"""Tumour core: enhancing tumour, and what lies within it without enhancing, ml."""

VOLUME_ET: Final = "volume.et"
"""Enhancing tumour, ml."""

VOLUME_OEDEMA: Final = "volume.oedema"
"""Whole tumour without its core, ml: oedema, and tumour that infiltrates without enhancing."""

VOLUME_NECROSIS: Final = "volume.necrosis"
"""Tumour core without the enhancing tumour, ml: necrosis, and core that does not enhance."""

VOLUME_BRAIN: Final = "volume.brain"
"""What is not background in the images, holes filled, ml: the brain with its fluid where the skull was taken off. Source `file`."""

SHARE_WT: Final = "share.wt"
"""Whole tumour in percent of VOLUME_BRAIN."""

DIAMETER_WT: Final = "diameter.wt.longest"
"""Longest straight line in three dimensions within the hull of the largest focus of the whole tumour, mm."""

DIAMETER_ET: Final = "diameter.et.longest"
"""The same of the enhancing tumour, mm."""

DIAMETER_ET_AXIAL: Final = "diameter.et.axial"
"""Largest diameter in any one axial slice of the largest enhancing focus, mm."""

DIAMETER_ET_PERPENDICULAR: Final = "diameter.et.axial_perpendicular"
"""Largest diameter at right angles to DIAMETER_ET_AXIAL in the same slice, mm."""

SMALLEST_ML: Final = 0.1
"""Smaller foci are not counted: a few voxels are within the error of any outline."""

FOCI_WT: Final = "foci.wt"
"""Number of separate parts of the whole tumour (26 neighbours, SMALLEST_ML and more)."""

FOCI_ET: Final = "foci.et"
"""The same of the enhancing tumour."""

SIDE: Final = "location.side"
"""`left`, `right`, `bilateral` or `midline`: the patient's side (gmmas_schema.vocabulary.Side)."""

SHARE_LEFT: Final = "share.left"
"""Part of the whole tumour that lies left of the mid-sagittal plane, percent."""

MIDLINE_CROSSING: Final = "midline.crossing"
"""Whether tumour lies on both sides of the mid-sagittal plane; yes or no."""

LOBES: Final = ("location.lobe_1", "location.lobe_2", "location.lobe_3")
"""Where the tumour lies, most of it first, as `left frontal lobe`: atlas-estimated, see gmmas_portal.analysis.lobes. The first is ABSENT
where the brain could not be laid over the atlas; the others are left out where they are not needed."""

LOBE_SHARES: Final = ("location.lobe_1_share", "location.lobe_2_share", "location.lobe_3_share")
"""Percent of the whole tumour in the lobe of the same number."""

CENTROID: Final = ("location.mni_x", "location.mni_y", "location.mni_z")
"""Centre of mass of the whole tumour in MNI space, mm to the right, to the front and upwards."""

MARKER_FACTS: Final[dict[Task, str]] = {
    Task.IDH: "marker.idh",
    Task.CODELETION: "marker.codeletion",
    Task.GRADE: "marker.grade",
    Task.MGMT: "marker.mgmt",
}
"""Told class of each marker the model has a head for: `mutant` or `wildtype`; `codeleted` or `intact`; `high` or `low`; `methylated` or
`unmethylated`."""

MARKER_PROBABILITIES: Final[dict[Task, str]] = {task: f"{name}.p" for task, name in MARKER_FACTS.items()}
"""Probability of the first of each two classes; of 1p/19q not conditional on IDH."""

SUBTYPE: Final = "subtype.told"
"""The most probable subtype of WHO CNS5, one of gmmas_schema.vocabulary.Subtype."""

SUBTYPE_PROBABILITIES: Final[dict[Subtype, str]] = {subtype: f"subtype.{subtype}" for subtype in Subtype}
"""Probability of each subtype; the three sum to 1."""

SPREAD_REGIONS: Final[dict[Region, str]] = {region: f"spread.{region}" for region in Region}
"""Mean standard deviation over Monte-Carlo passes of a region's probability inside it; left out for a region that was not found."""

SPREAD_MARKERS: Final[dict[Task, str]] = {task: f"spread.{name.partition('.')[2]}" for task, name in MARKER_FACTS.items()}
"""Standard deviation over Monte-Carlo passes of a marker's probability."""

OOD_SCORE: Final = "ood.score"
"""How unlike a known glioma the case is to the network, in [0, 1], see gmmas_portal.analysis.novelty; ABSENT where it outlined nothing."""

QUALITY: Final = "quality.passed"
"""Whether the images pass the checks of gmmas_data.case_audit; yes or no. Source `file`."""

AGE: Final = "context.age"
"""Age in years, as entered."""

POST_OPERATIVE: Final = "context.post_operative"
"""Whether the scan was taken after surgery, as entered; yes or no."""

TISSUE_FACTS: Final[dict[Task, str]] = {task: f"tissue.{name.partition('.')[2]}" for task, name in MARKER_FACTS.items()}
"""Marker as determined on tissue, in the words of MARKER_FACTS; grade is the number 2, 3 or 4."""

TISSUE_DIAGNOSIS: Final = "tissue.diagnosis"
"""Diagnosis on tissue, one of gmmas_schema.vocabulary.Subtype."""
