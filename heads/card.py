"""The card of a bundle: what a person, and the next featstore, must know about a head. Written and read as JSON.

The file is canonical JSON (sorted keys, ASCII) whose ``sha256`` is that of the same text without that field, and it must
equal, byte for byte, what this module would write: so a change of any byte is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featstore.errors import DamageError, InputError
from featstore.spec import Spec
from heads.evaluate import Score
from heads.fit import Trial
