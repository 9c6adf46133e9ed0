//! Why the runtime could not be asked, and what to do about it.

use std::{
    error::Error,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{Code, Status};

/// Text of others is shown up to so many characters.
const LONGEST_LINE: usize = 200;

/// Why the container runtime could not be asked. One line each: the operation, the socket, the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    /// There is no such file.
    #[error("no container runtime's socket at {socket}: mount it (hostPath) and set pods.socket")]
    Absent {
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// There is a file, and nobody listens.
    #[error("nobody listens at {socket}: is the container runtime running, and is this its socket (pods.socket)?")]
    Refused {
        /// Where.
        socket: PathBuf,
    },
    /// The kernel does not let us connect.
    #[error(
        "not allowed to connect to {socket}: run as uid 0 or with the socket's group, and see whether a security module \
         (SELinux, AppArmor) forbids it"
    )]
    Denied {
        /// Whereto.
        socket: PathBuf,
    },
    /// The connection could not be made or broke: not gRPC, or the runtime ended.
    #[error("{operation} at {socket}: {why}: does it end at this moment, or is this not a CRI socket (pods.socket)?")]
    Broken {
        /// The called method.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
        /// In the words of the transport.
        why: Box<str>,
    },
    /// It speaks gRPC but not `runtime.v1`.
    #[error(
        "{operation} at {socket}: it does not know runtime.v1: is it the runtime's CRI socket (pods.socket), is containerd's \
         CRI plugin enabled (disabled_plugins), is it containerd 1.6, CRI-O 1.24 or newer?"
    )]
    NotCri {
        /// The called method.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
    },
    /// It did not answer in time.
    #[error("{operation} at {socket}: no whole answer within {} s: is the container runtime overloaded or stuck?", within.as_secs_f32())]
    Deadline {
        /// The called method.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
        /// It was waited so long.
        within: Duration,
    },
    /// It answered what cannot be read or believed.
    #[error("{operation} at {socket}: its answer is not to be used: {why}: is this a CRI socket (pods.socket)?")]
    Unreadable {
        /// The called method.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
        /// What is wrong with the answer.
        why: Box<str>,
    },
    /// It answered with an error of its own.
    #[error("{operation} at {socket}: the runtime says {code:?}: {message}: see its log")]
    Failed {
        /// The called method.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
        /// gRPC's.
        code: Code,
        /// In the runtime's words, made to fit one line.
        message: Box<str>,
    },
}

impl CriError {
    /// Of a call that did not end well.
    pub(super) fn of(socket: &Path, operation: &'static str, status: &Status) -> Self {
        let path = socket.to_owned();
        // These kinds come of connecting alone.
        match io_kind(status) {
            Some(ErrorKind::NotFound) => return Self::Absent { socket: path },
            Some(ErrorKind::ConnectionRefused) => return Self::Refused { socket: path },
            Some(ErrorKind::PermissionDenied) => return Self::Denied { socket: path },
            _ => {}
        }
        match (status.code(), innermost(status)) {
            (Code::Unimplemented, _) => Self::NotCri { operation, socket: path },
            // What the other side says has no source: this is of the transport.
            (_, Some(cause)) => Self::Broken { operation, socket: path, why: line(&cause) },
            // tonic's own word for an answer longer than allowed.
            (Code::OutOfRange, None) => Self::unreadable(socket, operation, status.message()),
            (code, None) => Self::Failed { operation, socket: path, code, message: line(status.message()) },
        }
    }

    pub(super) fn unreadable(socket: &Path, operation: &'static str, why: &str) -> Self {
        Self::Unreadable { operation, socket: socket.to_owned(), why: line(why) }
    }

    /// True where another connection might do better.
    pub(super) fn is_of_the_connection(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::NotCri { .. })
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error: &&(dyn Error + 'static)| (*error).source())
}

fn io_kind(status: &Status) -> Option<ErrorKind> {
    causes(status).find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// The outer ones say only "transport error".
fn innermost(status: &Status) -> Option<String> {
    causes(status).last().map(ToString::to_string)
}

/// Text of others, bounded and on one line.
pub(super) fn line(text: &str) -> Box<str> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_LINE).collect();
    line.trim().into()
}
