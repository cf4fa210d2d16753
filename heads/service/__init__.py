"""Trained heads over HTTP, beside the cache that they were trained on.

``heads`` (the bundles that are served, and answers from all of them) → ``app`` (the routes) → ``guard`` (what every
request must keep to) → ``run`` (the server). Needs the extra ``serve``: FastAPI and uvicorn.
"""
