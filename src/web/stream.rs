//! A connection's socket: it ends well, or at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// What a peer takes to read the rest and to close its own end.
const PARTING_TIME: Duration = Duration::from_secs(10);
/// What is read of a peer that goes on writing, in bytes.
const MOST_IGNORED: usize = 64 << 10;

/// A socket that waits at its end until the peer has everything, and is reset where it does not come to that: so the kernel keeps
/// nothing for peers that do not read, and nobody loses an answer because of a request that went on.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    parting: Option<Parting>,
    parted: bool,
}

#[derive(Debug)]
struct Parting {
    until: Pin<Box<Sleep>>,
    ignored: usize,
}

impl Stream {
    /// Of a connection just accepted.
    pub const fn new(socket: TcpStream) -> Self {
        Self { socket, parting: None, parted: false }
    }

    /// Waits until the peer sent something, or went.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.parted {
            // A socket that cannot be told so is closed like any other.
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.parting.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        }
        let parting = this
            .parting
            .get_or_insert_with(|| Parting { until: Box::pin(tokio::time::sleep(PARTING_TIME)), ignored: 0 });
        let mut bytes = [0; 4 << 10];
        loop {
            if parting.ignored > MOST_IGNORED || parting.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => {
                    this.parted = true;
                    return Poll::Ready(Ok(()));
                }
                read => parting.ignored += read,
            }
        }
    }
}
