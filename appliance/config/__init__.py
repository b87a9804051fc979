"""Configuration: read from its layers, judged as a whole, every mistake told at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.config.contradictions import contradictions
from appliance.config.layers import Layers
from appliance.config.mistakes import Key, Mistake, of_validation, refuse
from appliance.config.schema import Settings

__all__ = ["Settings", "load"]

RUN = Path("/run/mdc")
STATE = Path("/var/lib/mdc")


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """The configuration in `path` and in the layers above it. Raises ConfigError, which names every mistake."""
    environ = os.environ if environ is None else environ
    layers = Layers()
    layers.read_file(path)
    layers.read_dotenv(path.with_name(".env"))
    layers.read_environment(environ)
    layers.read_credentials(environ)
    settings, mistakes = _judge(layers)
    if mistakes:
        raise refuse(path, mistakes)
    return settings


def _judge(layers: Layers) -> tuple[Settings, list[Mistake]]:
    values, where = layers.merged(), layers.where()
    for section, key in layers.secrets:
        values[section][key] = layers.secrets[section, key]
    # The one default that depends on another key.
    name = values["exchange"].get("name")
    values["ring"].setdefault("dir", str(RUN / str(name)))
    values["journal"].setdefault("dir", str(STATE / str(name)))

    mistakes = list(layers.mistakes)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        mistakes += of_validation(error, where)
        settings = Settings.model_validate(_without(values, {mistake.key for mistake in mistakes}))
    wrong = {mistake.key for mistake in mistakes}
    for contradiction in contradictions(settings, where):
        if not wrong & {contradiction.key, *contradiction.involves}:
            mistakes.append(contradiction)
    return settings, mistakes


def _without(values: dict[str, dict[str, Any]], wrong: set[Key]) -> dict[str, dict[str, Any]]:
    """The values that are right in themselves, so that what they say together can be judged in the same run."""
    sound = {section: {key: value for key, value in table.items() if (section, key) not in wrong} for section, table in values.items()}
    sound["exchange"].setdefault("name", "")
    sound["ring"].setdefault("dir", str(RUN))
    sound["journal"].setdefault("dir", str(STATE))
    return sound
