//! Least privilege: what the agent may not need is dropped at start, before there are threads.

use std::{fs, io};

pub use rustix::thread::CapabilitySet;
use rustix::thread::{CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

/// Drops every capability but `keep`, for ever: effective, permitted, inheritable and ambient ones, and none can be gained
/// by starting a program. Dropping what one does not have is no error, and nothing is gained by keeping it.
///
/// # Errors
/// The process has more than one thread (the others would keep theirs), or the kernel refuses.
pub fn drop_all_but(keep: CapabilitySet) -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("drop capabilities: threads are running that would keep theirs"));
    }
    let kept = capabilities(None)?.permitted & keep;
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    set_no_new_privs(true)?;
    Ok(())
}

/// True where the calling thread may enter namespaces of its own user namespace.
pub fn has_sys_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}
