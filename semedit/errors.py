"""Errors a user can cause. The CLI turns each into one clear line and an exit code."""


class SemeditError(Exception):
    """One sentence of what is wrong, and optionally a hint at what to do about it.

    Attributes:
        code: short name written into receipts.
        exit_code: what the process ends with when the error ends the run.
        fatal: whether it would meet every input alike, and so ends a run over a folder.
    """

    code = "error"
    exit_code = 1
    fatal = False

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(SemeditError):
    """A file cannot be read as what it should be."""

    code = "input"


class NoFaceError(SemeditError):
    """No face was found. Folder runs count it as skipped, not as failed."""

    code = "no-face"


class MaskError(SemeditError):
    """A label map is not in a known scheme, or does not fit its face."""

    code = "mask"


class LatentError(SemeditError):
    """A latent is damaged or belongs to another generator."""

    code = "latent"


class WeightsError(SemeditError):
    """A weight file is missing, damaged, or not what its row promises."""

    code = "weights"
    fatal = True


class TraitError(SemeditError):
    """A method needs something the chosen generator does not offer."""

    code = "trait"
    fatal = True
    exit_code = 2


class ShapeError(SemeditError):
    """A tensor has another shape than the contract says."""

    code = "shape"


class OptionError(SemeditError):
    """An option or name is unknown, or its value cannot be read."""

    code = "option"
    fatal = True
    exit_code = 2


class WorkspaceError(SemeditError):
    """The workspace cannot be used: not writable, locked, colliding names."""

    code = "workspace"
    fatal = True


class LockedError(WorkspaceError):
    """Another run is working in this workspace."""

    code = "locked"
    exit_code = 11


class NothingMatchedError(WorkspaceError):
    """No input or face matches what was asked for."""

    code = "nothing"
    exit_code = 4


class FailuresError(WorkspaceError):
    """More inputs failed than the user allows."""

    code = "failures"


class PlaceError(SemeditError):
    """A path leads out of the folder it belongs to, or what is there is not semedit's."""

    code = "place"


class EditedError(SemeditError):
    """An output was changed by hand, and would have to be made anew."""

    code = "edited"
