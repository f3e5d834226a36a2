"""Starts one program, waits for it and says what it cost.

measure.py runs it as `python -I -S launcher.py FD PROGRAM [ARGUMENT ...]`. It is a process of its own, and as
small as Python can be: the kernel counts the memory of whoever starts a program towards the program's peak.
What remains of that, some 8 MB, is a floor under every peak that is measured here.
"""

import posix
import sys
import time


def main() -> None:
    report = int(sys.argv[1])
    command = sys.argv[2:]
    posix.set_inheritable(report, False)
    start = time.monotonic()
    # A process group of its own, so that whoever waits for too long can end it with all its children.
    child = posix.posix_spawn(command[0], command, posix.environ, setpgroup=0)
    posix.write(report, b"%d\n" % child)
    _, status, usage = posix.wait4(child, 0)
    wall = time.monotonic() - start
    code = posix.waitstatus_to_exitcode(status)
    posix.write(report, b"%d %.6f %.6f %d\n" % (code, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))


main()
