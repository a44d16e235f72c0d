"""What running a gateway for others takes: who may come in, how much each may ask, and a record of what was served.

    keys     who is asking (key_file: hashes)   limits   requests and tokens a minute, streams at a time, a queue
    ledger   who was served what, by whom       usage    that, added up (prices: and what it costs)
    metrics  Prometheus                         logs     request ids, one JSON line a request
    fences   Host, Origin and CORS              drain    finish what runs, then stop

Each is a plain class that knows nothing of the model or of the dialects; the app joins them. As middleware, from the
outside in: RequestLog(Fence(Drain(app))), so that every answer has an id, and a listed page can read every refusal.
Modules are imported by name, so that reading a ledger needs none of the web's packages.
"""

__all__: list[str] = []
