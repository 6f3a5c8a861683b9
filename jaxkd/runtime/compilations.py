"""How many programs JAX has compiled in this process, and for how long."""

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_seconds: list[float] = []


def _listen(event: str, seconds: float, **more: object) -> None:
    if event == _EVENT:
        _seconds.append(seconds)


jax.monitoring.register_event_duration_secs_listener(_listen)


def compilations() -> tuple[int, float]:
    """Number of compilations since this module was imported, and their seconds.

    A program that comes out of JAX's persistent cache counts as one.
    """
    return len(_seconds), sum(_seconds)
