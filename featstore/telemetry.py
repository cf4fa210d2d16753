"""Nothing that featstore does is reported to anyone.

OpenVINO's Python package reports every import and conversion to its maker over the network, unless a file in the
user's home says no, and writes an identifier there. It takes a stub where ``openvino_telemetry`` cannot be imported.
"""

from __future__ import annotations

import sys


def forbid() -> None:
    """Make sure of that in this process; to be called before OpenVINO is first imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: an import raises ImportError
