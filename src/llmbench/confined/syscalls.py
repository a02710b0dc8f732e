"""What a process may ask of the kernel, taken from it for good: enough to compute with Python, and no more.

A filter of seccomp (Linux, x86-64 and arm64). Allowed is what stands in the table; everything else fails with EPERM: writing,
making, renaming and removing files, sockets, signals to others, other processes. Threads are allowed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys

__all__ = ["end_with_parent", "forbid"]

# name: (number on x86-64, number on arm64); None where the machine has no such call
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "mremap": (25, 216), "madvise": (28, 233), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "ioctl": (16, 29), "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getdents64": (217, 61), "getcwd": (79, 17), "dup": (32, 23), "fcntl": (72, 25), "sched_yield": (24, 124),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "sysinfo": (99, 179),
    "uname": (63, 160), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getrlimit": (97, 163), "getrandom": (318, 278),
    "getitimer": (36, 102), "setitimer": (38, 103), "sched_getaffinity": (204, 123), "futex": (202, 98),
    "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293), "membarrier": (324, 283),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Each machine's name for audits, and its place in the table."""
_OPEN = {0: ((2, 1), (257, 2)), 1: ((56, 2),)}
"""The calls that open a file by a path, with the argument that says for what."""
_CLONE, _CLONE3, _PRLIMIT = {0: 56, 1: 220}, 435, {0: 302, 1: 261}
_MAKING = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""The flags of an open that writes, makes, empties or appends: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE."""
_THREAD = 0x00010000
_LOAD, _EQUAL, _ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NO_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def end_with_parent() -> None:
    """This process is killed when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def forbid() -> None:
    """Takes from this process, for good, all calls that are not in the table.

    Raises:
        OSError: this system has no such filter, or does not let it be set.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        raise OSError(0, f"no filter for {sys.platform} on {platform.machine()}")
    code = _program(*machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, _FILTER, ctypes.create_string_buffer(header, len(header))
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _program(audit: int, place: int) -> bytes:
    """The filter, in the language of BPF: load the call's number, compare, return."""
    deny, absent = 0x00050000 | 1, 0x00050000 | 38  # EPERM, ENOSYS
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for numbers in _ALLOWED.values():
        if (number := numbers[place]) is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, argument in _OPEN[place]:
        code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _low(argument)), (_ANY, 0, 1, _MAKING)]
        code += [(_RETURN, 0, 0, deny), (_RETURN, 0, 0, _ALLOW)]
    # Threads only; clone3, whose flags a filter cannot see, is as if it were not there, and the C library takes clone.
    code += [(_EQUAL, 0, 4, _CLONE[place]), (_LOAD, 0, 0, _low(0)), (_ANY, 0, 1, _THREAD)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, deny)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, absent)]
    # Limits are read, not set: the pointer to new ones, 64 bits, is 0.
    code += [(_EQUAL, 0, 6, _PRLIMIT[place]), (_LOAD, 0, 0, _low(2)), (_EQUAL, 0, 3, 0)]
    code += [(_LOAD, 0, 0, _low(2) + 4), (_EQUAL, 0, 1, 0), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, deny)]
    code += [(_RETURN, 0, 0, deny)]
    return b"".join(struct.pack("HBBI", *one) for one in code)


def _low(argument: int) -> int:
    """Where the low half of an argument stands in what a filter sees, on machines that write it first."""
    return 16 + 8 * argument
