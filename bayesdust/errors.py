"""The one family of errors that a user can mend."""


class BayesdustError(ValueError):
    """Bad input: the message is one sentence that names what is wrong, where, and what to do."""


class ResumableError(BayesdustError):
    """What stopped the run can be mended, and the same command then goes on from what is done."""
