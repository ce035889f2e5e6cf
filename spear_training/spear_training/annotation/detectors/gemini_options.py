"""What Gemini is asked, and how patiently."""

from dataclasses import dataclass

from spear_training.annotation.frame import JobError


@dataclass(frozen=True)
class GeminiOptions:
    """Settings of the detector `gemini`.

    Attributes:
        model: name of the model at the service.
        prompt: in words; None: `gemini.default_prompt` of `max_objects`.
        max_objects: asked for in the default prompt.
        temperature: of the sampling; Google's own examples for boxes take 0.5.
        thinking_budget: tokens of thinking; 0 switches it off, None leaves it to the model (some
            models refuse 0).
        max_output_tokens: an answer that gets longer is cut off and refused.
        jpeg_quality: of the picture that is sent.
        timeout_s: that the service may be silent.
        attempts: at one picture, the first one included.
        retry_delay_s: before the second attempt; doubled before each further one, 60 s at most.
        requests_at_once: pictures that are asked about at the same time.
        most_failures_in_a_row: after so many pictures without any answer the job stops.
        base_url: of the service; None: Google's.
    """

    model: str = "gemini-2.5-flash"
    prompt: str | None = None
    max_objects: int = 25
    temperature: float = 0.5
    thinking_budget: int | None = 0
    max_output_tokens: int = 8192
    jpeg_quality: int = 90
    timeout_s: float = 60.0
    attempts: int = 5
    retry_delay_s: float = 1.0
    requests_at_once: int = 8
    most_failures_in_a_row: int = 20
    base_url: str | None = None

    def __post_init__(self):
        """Refuse what cannot work.

        Raises:
            JobError: names the setting.
        """
        positive = ("max_objects", "max_output_tokens", "attempts", "requests_at_once")
        for name in (*positive, "timeout_s", "most_failures_in_a_row"):
            if getattr(self, name) <= 0:
                raise JobError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 1 <= self.jpeg_quality <= 95:
            raise JobError(f"jpeg_quality is {self.jpeg_quality}; it must be 1..95")
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise JobError(f"base_url is {self.base_url!r}; it must begin with http:// or https://")
