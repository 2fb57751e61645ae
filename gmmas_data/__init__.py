"""From a folder of scans to samples: readers, quality gate, preprocessing, cache and augmentation; phantom/ makes cohorts."""
