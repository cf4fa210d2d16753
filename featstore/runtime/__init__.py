"""What executes the frozen graph: OpenVINO on CPUs, TensorFlow on CPUs and GPUs, one interface for both."""

from __future__ import annotations

from featstore.backbone import BATCH_SIZE, GraphSpec
from featstore.runtime.graph import Images, Runtime
from featstore.runtime.select import open_runtime

__all__ = ["BATCH_SIZE", "GraphSpec", "Images", "Runtime", "open_runtime"]
