"""What may be asked, topic by topic; what is under ``/v1`` is answered in JSON or with a picture.

``pictures`` (sent ones), ``heads``, ``images`` (stored ones), ``state`` (the store, counters, probes), ``page``.
``told`` is what the reference says of more than one.
"""
