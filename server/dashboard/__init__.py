"""The coordinator's dashboard: pages on 127.0.0.1 that show runs, hospitals and costs, and start, stop and resume runs.

It reads what the coordinator keeps (events, round records, the ledger) and sees aggregates only. `python -m server.dashboard FOLDER`
serves it; `gmmas server up` runs it as a process of its own.
"""
