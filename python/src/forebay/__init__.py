"""Forebay for Python: see ``forebay.jobq`` and ``forebay.tasks``."""
