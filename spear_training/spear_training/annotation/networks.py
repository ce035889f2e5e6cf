"""Neural networks of the stages: loaded when first needed, used by one thread at a time."""

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import ModuleType
from typing import Any, Generic, TypeVar

from spear_training.annotation.stages import JobError

T = TypeVar("T")
INSTALL = "pip install --upgrade transformers"
DTYPES = ("float32", "bfloat16", "float16")
# transformers fills missing weights with random numbers and only warns. A few may be missing for
# harmless reasons (buffers that are computed), a tenth may not.
MOST_MISSING = 0.1


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


class OneAtATime(Generic[T]):
    """A model behind a lock.

    Several pictures may be under way in threads of their own because the detector is a service;
    the networks after it still see one at a time, so that memory on the device stays that of one.
    """

    def __init__(self, load: Callable[[], T]):
        self._load, self._lock = load, threading.Lock()
        self._value: T | None = None

    @contextmanager
    def held(self) -> Iterator[T]:
        """Hand out the model.

        Raises:
            JobError: it cannot be loaded, or the device has failed or is full.
        """
        import torch

        with self._lock:
            try:
                if self._value is None:
                    self._value = self._load()
                yield self._value
            except torch.OutOfMemoryError as error:
                raise JobError(
                    f"the device has no memory left ({_first_line(error)}): end what else runs on "
                    "it, or choose a smaller model"
                ) from None
            except torch.AcceleratorError as error:
                raise JobError(
                    f"the device has failed ({_first_line(error)}): start the job again; finished "
                    "shards stay"
                ) from None


def settings_of(options) -> dict:
    """What a network's results depend on: its options, a dataclass, but for the device."""
    settings = asdict(options)
    del settings["device"]
    return settings


def pick_device(name: str) -> str:
    """A device of torch; "auto" is the GPU where there is one.

    Raises:
        JobError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the CPU build of torch asserts
        raise JobError(f"there is no device {name!r} here ({_first_line(error)})") from None
    return name


def check_dtype(name: str) -> None:
    """Refuse a type of number that no stage works with.

    Raises:
        JobError: names those that may be.
    """
    if name not in DTYPES:
        raise JobError(f"the dtype is {name!r}; it may be {', '.join(DTYPES)}")


def load_pretrained(
    class_name: str, kinds: tuple[str, ...], name: str, device: str, dtype: str
) -> Any:
    """Load a model of transformers for inference.

    Args:
        class_name: of transformers.
        kinds: what a fitting checkpoint's config may call itself.
        name: a folder, or a name on the model hub.
        device: of torch, or "auto".
        dtype: one of `DTYPES`.

    Raises:
        JobError: transformers is missing or too old, or there is no such model, it is damaged, or
            it is another kind of model.
    """
    import torch

    device = pick_device(device)
    model_class = from_transformers(class_name)
    config, _ = loading(name, lambda: model_class.config_class.get_config_dict(name))
    if config.get("model_type") not in kinds:
        kind = config.get("model_type", "nothing that transformers knows")
        raise JobError(f"the model {name} is {kind}, but {' or '.join(kinds)} is needed")
    model, found = loading(
        name,
        lambda: model_class.from_pretrained(
            name, dtype=getattr(torch, dtype), output_loading_info=True
        ),
    )
    missing, count = len(found["missing_keys"]), len(model.state_dict())
    if missing > MOST_MISSING * count:
        raise JobError(
            f"the model {name} is not whole: {missing} of its {count} weights are missing"
        )
    return model.to(device).eval()


def from_transformers(class_name: str) -> Any:
    """A class of the library transformers.

    Raises:
        JobError: the library is not installed, or older than the class.
    """
    library = load_library("transformers", INSTALL, class_name)
    try:
        return getattr(library, class_name)
    except (AttributeError, ImportError) as error:
        raise JobError(
            f"transformers {library.__version__} has no {class_name} ({_first_line(error)}): "
            f"{INSTALL}"
        ) from None


def loading(name: str, load: Callable[[], T]) -> T:
    """Call somebody else's loading code.

    Raises:
        JobError: whatever it raised, with the model's name.
    """
    try:
        return load()
    except Exception as error:  # files, networks, pickles, shapes: each library raises its own
        raise JobError(
            f"the model {name} cannot be loaded ({type(error).__name__}: {_first_line(error)}): "
            "give a folder with its files, or a name on the model hub and a network"
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given").rstrip(".")
