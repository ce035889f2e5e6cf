"""Pages that are one file each: text is escaped, nothing is loaded from elsewhere."""

from pathlib import Path

import jinja2

_SHARED = Path(__file__).parent


def render(template: Path, **values) -> str:
    """Fill a template, which extends base.html, with values.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
