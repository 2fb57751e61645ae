"""Phantom cohorts: synthetic glioma patients written as BraTS cohorts, for demos, tests, ablations and a hospital's dry run.

No public cohort may be shipped with software, so a generator is. Nothing made here is a patient, and nothing learnt here holds for patients.
"""

from gmmas_data.phantom.cohorts import make_cohorts


__all__ = ["make_cohorts"]
