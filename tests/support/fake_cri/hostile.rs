//! How a runtime may misbehave.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// In the answers of a method.
#[derive(Clone, Debug)]
pub enum Misbehaviour {
    /// A gRPC error.
    Error(u32, &'static str),
    /// These bytes are the message.
    Message(Vec<u8>),
    /// One message of so many bytes, well-formed: an unknown field fills it.
    Huge(u32),
    /// A message that says to be of so many bytes, of which only a few come.
    Claims(u32),
    /// Half of the right message, and then a good end.
    Truncated,
    /// The right message, again and again.
    Endless,
    /// One message of `Huge`'s kind without an end, a byte at a time.
    Trickle,
    /// No answer at all.
    Stall,
    /// Half of the right message, and then nothing.
    StallWithin,
    /// `RST_STREAM`.
    Reset,
    /// `GOAWAY`, and the connection's end.
    GoAway,
}

/// With a connection as a whole.
#[derive(Clone, Copy, Debug)]
pub enum OnConnect {
    /// Accepts, reads nothing, says nothing.
    Silence,
    /// An HTTP/1 server's answer.
    Http1,
    /// Bytes of no protocol, without end.
    Garbage,
    /// Hangs up at once.
    HangUp,
    /// A good start, and then `SETTINGS` without end.
    Settings,
    /// A good start, and then `PING`s without end, of which no answer is read.
    Pings,
    /// A good start, and then one header block without end, for the first call.
    Headers,
    /// A good start, and then `DATA` of the first call without regard for the window.
    Data,
}

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// Lets the client's first request through: its own SETTINGS are acknowledged.
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
/// Stream 1, not the end of the headers; a literal header without indexing.
const HEADERS: [u8; 14] = [0, 0, 5, 1, 0, 0, 0, 0, 1, 0, 1, b'a', 1, b'b'];
const CONTINUATION: [u8; 14] = [0, 0, 5, 9, 0, 0, 0, 0, 1, 0, 1, b'a', 1, b'b'];
/// Stream 1, the end of the headers: `:status: 200` and `content-type`, which are the static table's 8 and 31.
const OK_HEADERS: &[u8] = b"\0\0\x14\x01\x04\0\0\0\x01\x88\x0f\x10\x10application/grpc";

/// Treats a connection so, until it ends.
pub async fn treat(mut stream: UnixStream, how: OnConnect) -> std::io::Result<()> {
    let mut taken = vec![0; 64 << 10];
    match how {
        OnConnect::HangUp => return Ok(()),
        OnConnect::Silence => std::future::pending().await,
        OnConnect::Http1 => {
            let length = stream.read(&mut taken).await?;
            assert!(length > 0);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await?;
        }
        OnConnect::Garbage => loop {
            stream.write_all(&[0x55; 16 << 10]).await?;
        },
        OnConnect::Settings => flood(stream, &SETTINGS).await?,
        OnConnect::Pings => {
            stream.write_all(&SETTINGS).await?;
            loop {
                stream.write_all(&PING.repeat(1_000)).await?;
            }
        }
        OnConnect::Headers => {
            first_call(&mut stream).await?;
            stream.write_all(&HEADERS).await?;
            flood(stream, &CONTINUATION).await?;
        }
        OnConnect::Data => {
            first_call(&mut stream).await?;
            stream.write_all(OK_HEADERS).await?;
            let mut data = vec![0, 0x40, 0, 0, 0, 0, 0, 0, 1];
            data.resize(9 + (16 << 10), 0);
            flood(stream, &data).await?;
        }
    }
    Ok(())
}

/// Says hello and reads until a request of some length has come.
async fn first_call(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(&SETTINGS).await?;
    stream.write_all(&SETTINGS_ACK).await?;
    let (mut taken, mut length) = ([0; 4096], 0);
    while length < 150 {
        match stream.read(&mut taken).await? {
            0 => break,
            more => length += more,
        }
    }
    Ok(())
}

/// The same frame without end, while everything is read.
async fn flood(stream: UnixStream, frame: &[u8]) -> std::io::Result<()> {
    let frames = frame.repeat((64 << 10) / frame.len());
    let (mut reads, mut writes) = stream.into_split();
    let drain = async {
        let mut taken = vec![0; 64 << 10];
        while reads.read(&mut taken).await? > 0 {}
        std::io::Result::Ok(())
    };
    let pour = async {
        loop {
            writes.write_all(&frames).await?;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { ended = drain => ended, ended = pour => ended }
}
