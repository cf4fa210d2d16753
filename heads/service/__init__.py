"""Trained heads over HTTP, beside the cache that they were trained on.

``heads`` (the bundles that are served, and answers from all of them), ``gallery`` and ``details`` (what there is to
look at) → ``app`` (the routes; ``bodies`` come in, ``answers`` go out) → ``guard`` (what every request must keep to) →
``run`` (the server). ``client`` asks it. Needs the extra ``serve``: FastAPI, uvicorn and prometheus-client.
"""
