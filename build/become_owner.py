"""Runs a command as the user who owns a folder: `become_owner.py <folder> <command> <arguments>...`

Started as root in a container, it gives root up first. Files that services and trainings write into the checkpoints folder then
belong to whoever made that folder on the host, without anybody's number in a compose file. Where the folder is not mounted, the
command runs as nobody; where root owns it, or this is not root to begin with, it runs as it is. Where the Docker socket is mounted,
the command may use it.
"""

import os
import sys
from pathlib import Path

SOCKET = Path("/var/run/docker.sock")
NOBODY = 65534


def become_owner(folder: Path) -> None:
    owner, group = (folder.stat().st_uid, folder.stat().st_gid) if folder.exists() else (NOBODY, NOBODY)
    if os.getuid() != 0 or owner == 0:
        return
    os.setgroups([SOCKET.stat().st_gid] if SOCKET.exists() else [])
    os.setgid(group)
    os.setuid(owner)


if __name__ == "__main__":
    become_owner(Path(sys.argv[1]))
    os.environ["HOME"] = "/tmp"  # the user may have no home in here, and caches go somewhere
    os.execvp(sys.argv[2], sys.argv[2:])
