"""The site.yaml that `gmmas site init` writes: every key of gmmas_schema.site, those with a default as comments that show it."""

from typing import Final

SITE_TEMPLATE: Final = """\
# One hospital node of gmmas-fed. Relative paths are relative to this file; an unknown key is refused by name.
# Lines with `# key:` show defaults: take the # away to change one.

# What the coordinator calls this site: lower-case letters, digits, hyphens.
site: {site}

data:
  # Folder of the cohort, nested or flat. Its scans are only ever read, and never leave this machine.
  root: {root}
  # auto | brats2021 | brats2023 | brats2024 | ucsf-pdgm | egd | upenn-gbm | tcga | bids. auto infers the convention from the file names,
  # never from voxel values; brats2024 has to be named.
  layout: auto
  # CSV with columns patient_id, idh (mutant, wildtype) and codeletion (codeleted, intact), and where known grade (2, 3, 4, lgg, hgg),
  # mgmt (methylated, unmethylated) and subtype (glioblastoma, astrocytoma, oligodendroglioma); null: no such labels.
  labels: {labels}
  # Sequences this site offers; files of others are not opened.
  modalities: {modalities}
  # How to read a table of labels that has other headings or words:
  # table: {{columns: {{patient_id: PatNr, idh: IDH Status}}, values: {{idh: {{mutiert: mutant}}}}}}
  # What the values of the label maps mean, where the layout does not say it (BIDS) or says it otherwise:
  # background, necrosis, oedema, enhancing, core (necrosis and enhancing together), tumour (all of it).
  # segmentation_values: {{1: necrosis, 2: oedema, 3: enhancing}}
  # Patterns of files to leave out, relative to root: ['derivatives/old/*', '*_run-2_*']
  # exclude: []
  # true: leave out cases that fail the quality gate. false: refuse to start until they are mended.
  skip_bad_cases: false
  # Patients, never scans, are split; who is in which part follows from the seed and the set of patients. calibration 0: the validation
  # patients calibrate, too.
  split: {{validation: 0.15, test: 0.2, calibration: 0.0, seed: 0}}

coordinator:
  # host:port. The node connects outwards over TLS; no port is opened to the outside here.
  address: {coordinator}
  # The coordinator's authority.pem.
  root_certificate: {root_certificate}

node:
  # Proves who this site is. It never leaves this machine; the coordinator enrols the file beside it that ends in .enrolment.json.
  private_key: {private_key}
  # Sockets, caches, logs and the record of requests, with rights 0700.
  state: state
  # Port on loopback between SuperNode and executor; every node of one machine needs its own.
  runtime_port: {runtime_port}
  # resident: only the software installed here runs. flower: Flower's own executor, which runs what the coordinator sends.
  executor: resident
  # Folder with the public keys of the other hospitals, <site>.pub, exchanged between the hospitals: secure rounds take no others.
  # peers: null
  # CPU threads of the trainer, and processes that preprocess scans.
  threads: {threads}
  # auto (CUDA where present, else CPU) | cpu | cuda
  device: auto

# What this hospital lets a coordinator do. The trainer enforces it; the coordinator learns a reason code, state/logs/trainer.log has the
# whole reason. Without a change everything is answered, as it is with these defaults.
policy:
  # What may be asked. Without describe no run takes this site in.
  tasks: [describe, train, evaluate, calibrate]
  # Tasks whose labels are used; labels of others are treated as if there were none.
  heads: [segmentation, idh, codeletion, grade, mgmt]
  # Time zone of hours and days, as in Europe/Berlin.
  zone: UTC
  # When requests are answered; empty for always. A window may go over midnight: ['mon-fri 19:00-07:00', 'sat-sun 00:00-24:00']
  hours: []
  # Most rounds of training from midnight to midnight, over all runs; null for any number.
  rounds_per_day: null
  # Fewest patients to train on, to measure on, and behind sums for calibration. Figures over fewer are left out.
  patients: {{train: 1, evaluate: 1, calibrate: 2}}
  # Largest model, in parameters of the network (4 bytes each on the wire) and voxels of its grid; null for any size.
  largest_model: {{parameters: null, voxels: null}}
  # Safeguards that a run must have. secure: updates leave under masks only, in sums over at least `holders` sites. epsilon, delta: most
  # that a run with differential privacy may spend. clipped: an update's influence is bounded.
  privacy: {{secure: false, holders: 3, epsilon: null, delta: 1.0e-5, clipped: false}}

# Encrypts what the node keeps on disk (preprocessed cases, what it carries from round to round), with a key file that
# `gmmas site rotate-key` makes. Best on another disk than the state folder.
# encryption: {{key_file: keys/rest.key}}
"""
