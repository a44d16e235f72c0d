"""What running a gateway for others takes: who may come in, how much each may ask, and a record of what was served.

    keys     API keys, hashed at rest           limits   requests and tokens a minute, streams at a time, a queue
    ledger   tokens in and out, in SQLite       prices   what those tokens cost
    metrics  Prometheus                         logs     request ids, one JSON line a request
    fences   Host, Origin and CORS              drain    finish what runs, then stop

Each is a plain class that knows nothing of the others, of the model or of the dialects; the app joins them. Modules are
imported by name, so that reading a ledger needs none of the web's packages.
"""

__all__: list[str] = []
