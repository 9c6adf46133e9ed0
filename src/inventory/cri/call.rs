//! One gRPC call over a unix socket: bytes out, bytes in, within limits of size and time.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream as StdStream,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use prost::{
    Message,
    bytes::{Buf, BufMut, Bytes},
};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout_at},
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use super::CriError;

/// One call ends within this.
const CALL: Duration = Duration::from_secs(5);
/// The longest answer that is a list.
pub const LONGEST_LIST: usize = 16 << 20;
/// The longest other answer; several of them may be on their way at once.
pub const LONGEST_ANSWER: usize = 2 << 20;

/// A method, and how long its answer may be.
#[derive(Clone, Copy)]
pub struct Call {
    /// As gRPC names it.
    pub path: &'static str,
    /// The longest answer, in bytes.
    pub longest: usize,
}

impl Call {
    /// For people: the method alone.
    pub fn operation(self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// A connection to the runtime, made with the first call. Dropped, it is closed, whatever the other side does.
pub struct Connection {
    channel: Channel,
    _hangs_up: HangsUp,
}

impl Connection {
    /// Must be called inside a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        let hangs_up = HangsUp::default();
        let (socket, twin) = (socket.to_owned(), hangs_up.0.clone());
        let connector = tower::service_fn(move |_| {
            let (socket, twin) = (socket.clone(), twin.clone());
            async move {
                let stream = UnixStream::connect(socket).await?.into_std()?;
                *twin.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone()?);
                io::Result::Ok(TokioIo::new(UnixStream::from_std(stream)?))
            }
        });
        // The name is never looked up; HTTP/2 wants one.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self { channel, _hangs_up: hangs_up }
    }

    /// # Errors
    /// The call failed, or did not end in time: of its own, or of `end`.
    pub async fn call(
        &self,
        socket: &Path,
        call: Call,
        request: &impl Message,
        end: Instant,
    ) -> Result<Bytes, CriError> {
        let began = Instant::now();
        let until = end.min(began + CALL);
        let request = request.encode_to_vec();
        let answer = async {
            let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(call.longest);
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.unary(Request::new(request), PathAndQuery::from_static(call.path), Plain).await
        };
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CriError::of(socket, call.operation(), &status)),
            Err(_) => {
                let within = until.saturating_duration_since(began);
                Err(CriError::Deadline { operation: call.operation(), socket: socket.to_owned(), within })
            }
        }
    }
}

/// Shuts the socket down when it is dropped. HTTP/2 would part in good form, which takes two.
#[derive(Default)]
struct HangsUp(Arc<Mutex<Option<StdStream>>>);

impl Drop for HangsUp {
    fn drop(&mut self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails where the other side was quicker.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Messages as bytes: they are decoded where their limits are known.
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
