"""One exception tree. Every message says what was wrong and what to do about it."""


class DepthschedError(Exception):
    """Base of every error that depthsched raises on purpose.

    The command line prints its message on one line and leaves with exit code 2.
    """


class SettingsError(DepthschedError, ValueError):
    """A setting of a schedule, an order or a plan is missing, malformed or out of range."""


class UnknownNameError(DepthschedError, LookupError):
    """A schedule, order, adapter or model name that nobody registered."""


class ScheduleError(DepthschedError, ValueError):
    """A schedule returned something that is not a depth, or broke what its class declares."""


class PlanError(DepthschedError, ValueError):
    """A plan cannot be built, read or run as asked."""


class PluginError(DepthschedError):
    """A plug-in is broken, or two plug-ins claim the same name."""


class ModelError(DepthschedError):
    """A model cannot be found, loaded or driven layer by layer."""


class AttachError(DepthschedError, RuntimeError):
    """A model is already attached, in use by another thread, or used in a way a plan cannot follow."""


class ProfileError(DepthschedError):
    """A profile is missing, damaged, edited, or for another model."""


class CacheError(DepthschedError, RuntimeError):
    """A KV cache does not hold what the layers about to read it need."""


class RankError(DepthschedError, RuntimeError):
    """A rank of a tensor-parallel run ended, or does not do what the others do."""


class WorkError(DepthschedError, RuntimeError):
    """A piece of work failed on the workers of a cluster, or a worker has another model."""


class DepthschedWarning(UserWarning):
    """Something runs as asked and may not be what was meant. The command line prints it as one line."""


class DeprecatedWarning(DepthschedWarning, FutureWarning):
    """A public name was used that a later version no longer has. Shown to everyone, not to developers alone."""


class MissingExtraError(DepthschedError, ImportError):
    """A package of an optional extra is not installed."""
