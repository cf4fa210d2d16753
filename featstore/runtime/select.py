"""Which runtime a graph is opened in."""

from __future__ import annotations

from featstore.backbone import BATCH_SIZE, GraphSpec
from featstore.machine import check_device, choose_runtime
from featstore.runtime.graph import Runtime


def open_runtime(
    graph: GraphSpec,
    runtime: str = "auto",
    device: str | None = None,
    batch_size: int = BATCH_SIZE,
    cores: int | None = None,
) -> Runtime:
    """Compile ``graph`` in "openvino", "tensorflow", or what suits this machine ("auto").

    ``device`` is "cpu", "gpu" or "gpu:N"; by default a GPU if TensorFlow has one. Raises InputError for a runtime,
    device or precision that is not to be had here. Only the chosen library is imported.

    ``batch_size`` images are computed at once. A smaller one answers sooner; in OpenVINO the rows are the same to the
    bit, in TensorFlow they need not be, so there it stays what it is. ``cores`` are those of the CPU that may compute
    (None: all); TensorFlow heeds it only where it has not computed yet.
    """
    check_device(device)
    if choose_runtime(runtime) == "openvino":
        from featstore.runtime.openvino import OpenVinoRuntime

        return OpenVinoRuntime(graph, device, batch_size, cores)
    from featstore.runtime.tensorflow import TensorFlowRuntime

    return TensorFlowRuntime(graph, device, cores)
