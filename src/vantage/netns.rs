//! Network namespaces of other pods: entered by a thread that ends there.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

/// Tells two network namespaces apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// The device of the kernel's file system of namespaces.
    pub device: u64,
    /// The namespace's number, unique while the namespace is open somewhere.
    pub inode: u64,
}

impl NetnsId {
    fn of(file: &fs::Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// An open network namespace. While it is open a dead pod's namespace stays alive: hold it only while a sweep runs.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
    id: NetnsId,
}

impl Netns {
    /// Opens what is mounted at `/var/run/netns/<name>`, or `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// The path cannot be opened, or is no namespace. A namespace of another kind is refused by [`Netns::visit`].
    pub fn open(path: &Path) -> Result<Self, EnterError> {
        let failed = |error| EnterError::of(Operation::Open, path, error);
        if is_own_process(path) {
            return Err(EnterError::Gone { path: path.into() });
        }
        // Whatever is at the path, opening it must not wait: a FIFO would.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = file.map_err(failed)?;
        if fstatfs(&file).map_err(|e| failed(e.into()))?.filesystem_type() != NSFS_MAGIC {
            return Err(EnterError::NoNamespace { path: path.into() });
        }
        let id = NetnsId::of(&file.metadata().map_err(failed)?);
        Ok(Self { path: path.into(), file, id })
    }

    /// Which namespace it is.
    pub const fn id(&self) -> NetnsId {
        self.id
    }

    /// True while the path still leads to this namespace: false once its pod is gone, or replaced by another.
    pub fn is_there(&self) -> bool {
        // The number cannot have been given to another namespace: this one is open.
        fs::metadata(&self.path).is_ok_and(|file| NetnsId::of(&file) == self.id)
    }

    /// Runs `work` in the namespace and waits for it: some 20 µs more than the work takes.
    ///
    /// It runs on a thread of its own that ends there, so that no other thread is ever in a wrong namespace, even if the
    /// work panics. Sockets that it makes can be used from everywhere.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the work panicked.
    pub fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, EnterError> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|e| EnterError::of(Operation::Enter, &self.path, e.into()))?;
            Ok(work())
        };
        thread::scope(|scope| match thread::Builder::new().name("visit".into()).spawn_scoped(scope, inside) {
            Ok(visitor) => visitor.join().unwrap_or_else(|_| Err(EnterError::Panicked { path: self.path.clone() })),
            Err(error) => Err(EnterError::of(Operation::Spawn, &self.path, error)),
        })
    }

    /// The namespace of the calling process (of its first thread).
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn own() -> io::Result<NetnsId> {
        fs::metadata("/proc/self/ns/net").map(|file| NetnsId::of(&file))
    }
}

/// True for `/proc/<pid>/ns/net` of this process or one of its threads. A container runtime never means that: without `hostPID`
/// its process ids are those of other processes, and threads of the agent, which come and go, may have any of them.
fn is_own_process(path: &Path) -> bool {
    let Some(process) = path.parent().filter(|_| path.ends_with("ns/net")).and_then(Path::parent) else { return false };
    let is_id = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    if process.parent() != Some(Path::new("/proc")) || !process.file_name().is_some_and(is_id) {
        return false;
    }
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")).map(str::trim);
    group == Some(&*std::process::id().to_string())
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// open(2) of the path.
    Open,
    /// setns(2).
    Enter,
    /// The start of the thread that was to enter.
    Spawn,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Enter => "enter",
            Self::Spawn => "start a thread for",
        })
    }
}

/// Why a namespace could not be entered. One line each: operation, object, remedy.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Nothing is at the path.
    #[error(
        "open network namespace {path:?}: it is gone with its pod, or the node's directory is not mounted here \
         (a hostPath volume at the same path; hostPID for a path in /proc)"
    )]
    Gone {
        /// What was to be opened.
        path: PathBuf,
    },
    /// An ordinary file: what the container runtime mounts on it is not seen here.
    #[error(
        "open network namespace {path:?}: no namespace is mounted on it; mount its directory with mountPropagation: \
         HostToContainer"
    )]
    NoNamespace {
        /// What was opened.
        path: PathBuf,
    },
    /// A namespace, of processes or mounts or anything but a network.
    #[error(
        "enter network namespace {path:?}: it is a namespace of another kind; give the path of a network namespace"
    )]
    OtherKind {
        /// What was to be entered.
        path: PathBuf,
    },
    /// EPERM.
    #[error(
        "{operation} network namespace {path:?}: not permitted; add the capability SYS_ADMIN, run as user 0 and without \
         hostUsers: false, and let the seccomp profile allow setns"
    )]
    NotPermitted {
        /// What was tried.
        operation: Operation,
        /// With what.
        path: PathBuf,
    },
    /// EACCES.
    #[error(
        "{operation} network namespace {path:?}: permission denied; a path in /proc needs the capability SYS_PTRACE and \
         hostPID, any other user 0, or a security module (SELinux, AppArmor) must allow it"
    )]
    Denied {
        /// What was tried.
        operation: Operation,
        /// With what.
        path: PathBuf,
    },
    /// No descriptor, no thread or no memory is left.
    #[error(
        "{operation} network namespace {path:?}: {source}; raise the limit of descriptors, processes or memory, or lower \
         pace.in_flight"
    )]
    Exhausted {
        /// What was tried.
        operation: Operation,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The work panicked. Its thread is gone, and nothing else was touched.
    #[error("work in network namespace {path:?} panicked; this is a defect of segprobe, please report it")]
    Panicked {
        /// Where it worked.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{operation} network namespace {path:?}: {source}")]
    System {
        /// What was tried.
        operation: Operation,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl EnterError {
    fn of(operation: Operation, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR) => Self::Gone { path },
            Some(Errno::EINVAL) if operation == Operation::Enter => Self::OtherKind { path },
            Some(Errno::EPERM) => Self::NotPermitted { operation, path },
            Some(Errno::EACCES) => Self::Denied { operation, path },
            Some(Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN | Errno::ENOMEM) => {
                Self::Exhausted { operation, path, source }
            }
            _ => Self::System { operation, path, source },
        }
    }
}

/// For those who can only tell what the system said.
impl From<EnterError> for io::Error {
    fn from(error: EnterError) -> Self {
        let errno = match error {
            EnterError::Gone { .. } => Errno::ENOENT,
            EnterError::NoNamespace { .. } | EnterError::OtherKind { .. } => Errno::EINVAL,
            EnterError::NotPermitted { .. } => Errno::EPERM,
            EnterError::Denied { .. } => Errno::EACCES,
            EnterError::Exhausted { source, .. } | EnterError::System { source, .. } => return source,
            EnterError::Panicked { .. } => return Self::other(error),
        };
        errno.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let gone = Netns::open(&directory.path().join("cni-1")).unwrap_err();
        assert!(matches!(gone, EnterError::Gone { .. }), "{gone}");
        let ordinary = directory.path().join("cni-2");
        fs::write(&ordinary, "").unwrap();
        let ordinary = Netns::open(&ordinary).unwrap_err();
        assert!(matches!(ordinary, EnterError::NoNamespace { .. }), "{ordinary}");
        assert!(ordinary.to_string().contains("HostToContainer"));
        let below = Netns::open(&directory.path().join("cni-2/net")).unwrap_err();
        assert!(matches!(below, EnterError::Gone { .. }), "{below}");
    }

    #[test]
    fn every_error_is_one_line() {
        let path = Path::new("/var/run/netns/a\nb");
        for operation in [Operation::Open, Operation::Enter, Operation::Spawn] {
            for errno in 1..133 {
                let line = EnterError::of(operation, path, io::Error::from_raw_os_error(errno)).to_string();
                assert!(line.starts_with(&format!("{operation} ")) || line.starts_with("open "), "{line}");
                assert!(!line.contains(char::is_control) && !line.contains("  "), "{line}");
                assert!(line.contains(r#""/var/run/netns/a\nb""#), "{line}");
            }
        }
    }

    #[test]
    fn an_error_keeps_its_number() {
        for errno in [Errno::ENOENT, Errno::EPERM, Errno::EACCES, Errno::EMFILE, Errno::EIO, Errno::EINVAL] {
            let told = EnterError::of(Operation::Enter, Path::new("x"), errno.into());
            assert_eq!(io::Error::from(told).raw_os_error(), Some(errno as i32));
        }
    }

    #[test]
    fn a_process_id_that_is_our_own_is_another_pid_namespaces() {
        let of = |id: u32| Netns::open(Path::new(&format!("/proc/{id}/ns/net")));
        assert!(matches!(of(std::process::id()), Err(EnterError::Gone { .. })));
        let thread = fs::read_link("/proc/thread-self").unwrap();
        let thread = thread.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert!(matches!(of(thread), Err(EnterError::Gone { .. })));
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let seen = of(other.id());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(seen.unwrap().id(), Netns::own().unwrap());
    }

    #[test]
    fn the_own_namespace_is_the_one_in_proc() {
        let own = Netns::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(own.id(), Netns::own().unwrap());
        assert!(own.is_there());
    }
}
