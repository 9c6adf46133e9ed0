//! A TCP server in a pod: it accepts, counts and closes.

use std::{
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Listens until it is dropped.
pub struct Listener {
    pub address: SocketAddr,
    socket: TcpListener,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Serves a socket that was bound in the namespace where it belongs: it stays there.
    pub fn serve(socket: TcpListener) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (socket, accepted) = (socket.try_clone().unwrap(), accepted.clone());
            thread::spawn(move || {
                while socket.accept().is_ok() {
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Self { address: socket.local_addr().unwrap(), socket, accepted, thread: Some(thread) }
    }

    /// How many connections it has taken.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the accepting thread with an error.
        let _ = socket2::SockRef::from(&self.socket).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
