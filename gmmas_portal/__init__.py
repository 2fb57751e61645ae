"""The clinical platform at a hospital: cases, findings, reports, GMMAS-GPT. Research use only; on 127.0.0.1 unless told otherwise.

    analysis/   from a case on disk to its record (gmmas_schema.case_record): prediction, measurements, reasons to abstain
    evidence/   published figures and guidelines as data, and the rules that choose them for a record
    reports/    clinician's and patient's version, sentence by sentence, each with the facts and evidence it rests on; PDF
    language/   GMMAS-GPT: an optional language model that rewrites sentences, and the verifier of what it wrote
    exports/    DICOM segmentation, DICOM structured report, JSON
    web/        accounts, pages, job queue, audit

Data walks one way: case, record, report, page; none of the first five rooms knows of `web`.
"""
