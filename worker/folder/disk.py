"""What an error says of the disk that jobs live on: whether it is away, for every job alike, or only has no room."""

from __future__ import annotations

import errno

from ..errors import Advice

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


_ROOM = "Make room there, or set keep_done and done_bytes in site.toml lower"
_OURS = "Set jobs_dir in site.toml to a folder of your own; or run, if it is yours: chmod u+rwx"
_FIXES = {
    errno.ENOSPC: _ROOM, errno.EDQUOT: f"{_ROOM}; our quota there is used up (quota -s): or ask for more",
    errno.EROFS: "It is mounted read-only: tell its administrators",
    errno.EACCES: _OURS, errno.EPERM: _OURS, errno.ENOTDIR: "Set jobs_dir in site.toml to a folder",
    errno.EKEYEXPIRED: "Our Kerberos ticket has expired: renew it (kinit), for cron too",
}  # fmt: skip


def is_away(error: OSError) -> bool:
    """Whether this befalls all jobs, and passes or is put right for all of them."""
    return error.errno in AWAY


def cause(error: OSError) -> Advice:
    """What is wrong, and what an operator does about it."""
    fix = _FIXES.get(error.errno or 0, "Is its file system mounted? Does its server answer? Tell its administrators")
    if is_away(error):
        how = "written" if error.errno in FULL else "reached"
        return Advice(f"the jobs folder can't be {how}: {error.strerror}", fix)
    return Advice(f"{error.filename or 'the jobs folder'} can't be used: {error.strerror or error}", fix)


def words(error: OSError) -> str:
    """The same in a line."""
    return str(cause(error))
