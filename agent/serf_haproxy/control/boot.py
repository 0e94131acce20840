"""A configuration for HAProxy to start with, when the live file is missing or broken."""

from collections.abc import Callable

from serf_haproxy.control.goal import compute, read_pool
from serf_haproxy.control.state import read_good_template
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.haproxy import config_file
from serf_haproxy.settings import Settings


def boot(settings: Settings) -> str:
    """Publish the best configuration that HAProxy accepts; return which one that is, and why none before it was.

    Raises:
        SystemFault: It accepts none, or the live file cannot be written.
    """
    built_in = settings.replace(template_path="")
    choices: dict[str, Callable[[], str | None]] = {
        "the last one that HAProxy confirmed": lambda: config_file.read_good(settings),
        "one made of the node files": lambda: compute(settings, read_pool(settings).servers).text,
        "one made with the last good template": lambda: _with_good_template(settings),
        "one made with the built-in template": lambda: compute(built_in, read_pool(built_in).servers).text,
        "one without servers": lambda: compute(built_in, ()).text,
    }
    faults: list[str] = []
    for name, make in choices.items():
        try:
            text = make()
            if text is None:
                continue
            words = config_file.check(settings, text)
        except (InputError, SystemFault) as error:
            words = str(error)
        if words is None:
            config_file.publish(settings, live_is_confirmed=False)
            return f"HAProxy starts with {name}" + "".join(f"; not with {fault}" for fault in faults)
        faults.append(f"{name}: {' '.join(words.split())[:300]}")
    raise SystemFault(f"there is no configuration that HAProxy accepts: {'; '.join(faults)}")


def _with_good_template(settings: Settings) -> str | None:
    template = read_good_template(settings)
    return None if template is None else compute(settings, read_pool(settings).servers, template).text
