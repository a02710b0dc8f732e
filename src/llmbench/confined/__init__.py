"""Processes that do what is not trusted for another: they parse strangers' documents and run models' chat templates.

inside    the child's side: what it takes from itself before it begins
process   the parent's side: starting it, asking it over pipes, how it died, and its end
syscalls  the child's side again, for programs: all but a few of the kernel's calls taken from it
"""

__all__ = ["inside", "process", "syscalls"]
