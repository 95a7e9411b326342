"""What an error says of the disk that jobs live on: whether it is away, for every job alike, or only has no room."""

from __future__ import annotations

import errno

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""It answers, and takes nothing."""
AWAY = FULL | frozenset({
    errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECOMM,
    errno.ENOLINK, errno.EKEYEXPIRED, errno.EUCLEAN, errno.EBADMSG,
})  # fmt: skip
"""No single file can be at fault.

- NFS: what its server can't say otherwise is EIO or EREMOTEIO (`nfs4_map_errors` in Linux's fs/nfs/nfs4proc.c); a mount with
  `soft` or `softerr` gives EIO or ETIMEDOUT (nfs(5)); the transport's own errors come through where a mount is tried anew;
  EKEYEXPIRED where a Kerberos ticket has expired.
- ESTALE: the server knows the file's handle no more. Measured where one client replaces or removes what another has open
  (NFS 3, GlusterFS); opened anew by its name, the next one is found. Where that says ESTALE too, it is the whole export.
- FUSE (GlusterFS, JuiceFS, MooseFS, sshfs): ENOTCONN when the client's process has died.
- Lustre: its manual's "Error Numbers" are EIO, ENOTCONN, ETIMEDOUT; ESHUTDOWN to a client that its server has evicted.
- A local disk: EIO, and EUCLEAN and EBADMSG, which ext4 and XFS call EFSCORRUPTED and EFSBADCRC.
"""


def is_away(error: OSError) -> bool:
    """Whether this befalls all jobs, and passes or is put right for all of them."""
    return error.errno in AWAY


def words(error: OSError) -> str:
    """For people."""
    how = "written" if error.errno in FULL else "reached"
    return f"the jobs folder can't be {how}: {error.strerror}"


def fix(error: OSError) -> str:
    """What to do where the jobs folder can't be made or used; empty where that is not known."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Set jobs_dir in site.toml to a folder of your own; or run, if it is yours: chmod u+rwx"
    if error.errno == errno.EROFS:
        return "It is mounted read-only: ask its administrators, or set jobs_dir in site.toml to another disk"
    if error.errno in FULL:
        return "Make room there, or set jobs_dir in site.toml to another disk"
    return "Is its file system mounted? ./check.py doctor looks at it" if error.errno in AWAY else ""
