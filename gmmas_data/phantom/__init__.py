"""Phantom cohorts: synthetic glioma patients written as BraTS cohorts, for demos, tests, ablations and a hospital's dry run.

They serve demos, tests, ablations and a hospital's dry run, because no public cohort may be shipped with software. Nothing made here is a
patient, and nothing learnt here holds for patients.
"""

from gmmas_data.phantom.cohorts import make_cohorts
from gmmas_data.phantom.overview import draw_overview

__all__ = ["draw_overview", "make_cohorts"]
