"""Trained heads over HTTP, beside the cache that they were trained on.

``heads`` (the bundles that are served, and what they say; ``permits`` for decoding), ``gallery`` and ``details`` (what
there is to look at) → ``routes`` (``bodies`` come in, ``answers`` go out) → ``app`` → ``guard`` (what requests must
keep to: ``limits``) → ``run`` (the server, which takes them apart with ``parser``). ``client`` asks it. Needs the extra
``serve``: FastAPI, uvicorn and prometheus-client.
"""
