"""jobq's module by its old name: the same as ``forebay.jobq``."""

from forebay.jobq import *  # noqa: F401,F403
from forebay.jobq import Job, JobQueue, __all__, __doc__  # noqa: F401
