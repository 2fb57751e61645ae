"""Reports for clinicians and for patients, sentence by sentence, from a case's record; complete without a language model.

report.py       sentences, each with the facts and evidence it rests on; the report
wording.py      what becomes of `{{volume.wt}}` in a sentence, for each kind of reader
provenance.py   facts about images, model and outline, which a record holds in other forms
clinician.py    templates of the clinician's version
patient.py      templates of the patient's version
writing.py      from a record to a report
pdf.py          from a report to pages
"""
