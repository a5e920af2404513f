"""Forebay for Python: see ``forebay.jobq``."""
