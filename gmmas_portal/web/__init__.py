"""The web part of the clinical platform: accounts, pages, uploads, a queue of jobs, the record of who did what.

    settings, folder      what it is told, and where everything lies
    tables                the one SQLite file; accounts, audit, cases, jobs are its parts
    gate, login           who may pass, and as whom
    archive, intake       uploads: unpacked safely, looked at, confirmed, stripped of what names a patient
    worker, tasks         the process that analyses, one case at a time
    craft                 the one file that calls gmmas_portal.analysis, reports, evidence, language and exports
    app, *_pages, stream  the application

Two processes: the web server, which never opens an image, and the worker, which opens what was uploaded and has no network port.
"""
