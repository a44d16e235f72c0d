"""Memory in huge pages for a process that streams weights: set for the C library before it allocates anything."""

from __future__ import annotations

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb=1"
"""madvise(MADV_HUGEPAGE) on what malloc maps. Whoever reads weights from end to end meets fewer page table walks;
`GLIBC_TUNABLES= scripts/bench decode` shows the other side. Other C libraries, and kernels without them, ignore it.
"""


def restart_with_huge_pages() -> None:
    """Run this very command again in this process, with the setting; do nothing where the variable is set already.

    The process id and what is open on descriptors 0 to 2 stay. Call it before anything is opened or started.
    """
    if not sys.platform.startswith("linux") or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = SETTING
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:
        del os.environ[VARIABLE]  # then with small pages
