"""The one exception that is the user's to mend."""


class InputError(Exception):
    """What a user gave cannot work; the message says what is wrong, where, and how to mend it.

    A stage prints the message as its last line and exits with status 1 (`run.run`). Anything else
    that is raised is a fault of the program and keeps its traceback.
    """
