"""diffusers as the reference. It is imported here alone, with the operators that a mismatched torchvision lacks."""

from __future__ import annotations

from tools.shim.sitecustomize import mend_torchvision

mend_torchvision()
