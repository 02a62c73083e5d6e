"""The paper's methods and those that it compares with (Table 2): a schedule, and what is done to history."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import FramePackError, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method by name: its schedule, the noise level of history, causal history, the scale of history guidance."""

    name: str
    schedule: str
    note: str
    noise: float = 0.0
    causal: bool = False
    history_guidance: float = 0.0


PACKED = "f16k4f2k2f1k1"
METHODS = {
    method.name: method
    for method in (
        Method(name="vanilla", schedule=f"td_{PACKED}_g9", note="packed history, in order of time"),
        Method(name="endpoint", schedule=f"td_{PACKED}_g9_x_f1k1", note="beginning and ending first"),
        Method(name="inverted", schedule="f1k1_x_g9_f1k1f2k2f16k4_td", note="from the end towards the start"),
        Method(name="repeat", schedule="f1k1_g9", note="image to video again and again: only the last frame is seen"),
        Method(name="anchor", schedule=f"f1k1_x_{PACKED}_g9", note="the start frame stays in view (StreamingT2V)"),
        Method(
            name="causal",
            schedule=f"td_{PACKED}_g9",
            note="history sees only itself and is computed once (CausVid)",
            causal=True,
        ),
        Method(name="noisy", schedule=f"td_{PACKED}_g9", note="history is noised (DiffusionForcing)", noise=0.1),
        Method(
            name="guided",
            schedule=f"td_{PACKED}_g9",
            note="away from a result without history (HistoryGuidance)",
            history_guidance=1.0,
        ),
    )
}


def method_named(name: str) -> Method:
    """The method of a name. Raises FramePackError."""
    if name not in METHODS:
        raise FramePackError(f"The method is one of: {', '.join(METHODS)}; got {quoted(name)}.")
    return METHODS[name]
