"""Libraries that only some stages need: imported when such a stage first works."""

import importlib
from types import ModuleType

from spear_training.annotation.frame import JobError


def load_library(module: str, install: str, stage: str) -> ModuleType:
    """Import a library that not every user has.

    Args:
        module: dotted name.
        install: the command that brings it.
        stage: who needs it, for the sentence.

    Raises:
        JobError: it is not installed, or it does not start; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        missing = error.name or top
        behind = "" if missing.partition(".")[0] == top else f", which {top} needs"
        raise JobError(f"{stage} needs {missing}{behind}: {install}") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise JobError(
            f"{stage} needs {module}, which is installed but does not start ({error}): {install}"
        ) from None
