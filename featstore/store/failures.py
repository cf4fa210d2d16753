"""Failures to read a file that say nothing against it: calling it damaged would throw good rows away."""

from __future__ import annotations

import errno

NOT_THE_FILE = {
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOLCK),  # our share
    *(errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ECANCELED),  # the moment
    *(errno.ENODEV, errno.ENXIO),  # a disk that was pulled out
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ESHUTDOWN),
    *(errno.EPIPE, errno.ENOLINK, errno.EPROTO),
    *(getattr(errno, name) for name in ("EREMOTEIO", "ECOMM", "ENONET", "ENOMEDIUM") if hasattr(errno, name)),  # Linux
}
"""Numbers of errors; every other one is a reason to set the file aside, for no segment may end every run for ever."""
