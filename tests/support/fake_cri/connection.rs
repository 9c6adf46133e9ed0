//! HTTP/2 and gRPC's framing around the answers.

use bytes::{Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};

use super::{
    Method, Misbehaviour, Shared, hostile, lock,
    messages::{
        ListContainersRequest, ListContainersResponse, ListPodSandboxResponse, PodSandboxStatusRequest, VersionResponse,
    },
};

/// gRPC's.
const OK: u32 = 0;
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;
/// An unknown field (15) of bytes, to fill messages with.
const FILLER: u8 = 15 << 3 | 2;

pub async fn accept(listener: &UnixListener, state: &Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let how = {
                let mut state = lock(&state);
                state.connections += 1;
                state.open += 1;
                state.on_connect
            };
            // A client that went away is no loss.
            match how {
                Some(how) => drop(hostile::treat(stream, how).await),
                None => drop(serve(stream, &state).await),
            }
            let mut state = lock(&state);
            state.open = state.open.saturating_sub(1);
        });
    }
}

async fn serve(stream: UnixStream, state: &Shared) -> Result<(), h2::Error> {
    let mut connection = server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let method = Method::of(request.uri().path());
        let misbehaviour = {
            let mut state = lock(state);
            if let Some(method) = method {
                *state.calls.entry(method).or_default() += 1;
            }
            method.and_then(|method| state.misbehaviours.get(&method).cloned())
        };
        if matches!(misbehaviour, Some(Misbehaviour::GoAway)) {
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            continue;
        }
        tokio::spawn(answer(request, respond, method, misbehaviour, state.clone()));
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    method: Option<Method>,
    misbehaviour: Option<Misbehaviour>,
    state: Shared,
) -> Result<(), h2::Error> {
    let request = body(request.into_body()).await?;
    let right = match method {
        Some(method) => right_answer(method, &request, &state),
        None => Err((UNIMPLEMENTED, "unknown service runtime.v1.RuntimeService")),
    };
    match (misbehaviour, right) {
        (None, Ok(message)) => good(respond, &message).await,
        (None, Err((code, message))) => error(respond, code, message),
        (Some(how), right) => bad(respond, how, right.unwrap_or_default()).await,
    }
}

fn right_answer(method: Method, request: &[u8], state: &Shared) -> Result<Vec<u8>, (u32, &'static str)> {
    let pods = &lock(state).pods;
    Ok(match method {
        Method::Version => VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "v0.0.1".into(),
            runtime_api_version: "v1".into(),
        }
        .encode_to_vec(),
        Method::ListPodSandbox => {
            ListPodSandboxResponse { items: pods.iter().map(|pod| pod.listed()).collect() }.encode_to_vec()
        }
        Method::ListContainers => {
            let request = ListContainersRequest::decode(request).unwrap();
            let state = request.filter.and_then(|filter| filter.state).map(|state| state.state);
            let containers = pods.iter().flat_map(|pod| pod.containers());
            let containers =
                containers.filter(|container| state.is_none_or(|state| container.state == state)).collect();
            ListContainersResponse { containers }.encode_to_vec()
        }
        Method::PodSandboxStatus => {
            let request = PodSandboxStatusRequest::decode(request).unwrap();
            let pod = pods.iter().find(|pod| pod.id == request.pod_sandbox_id);
            let mut status = pod.ok_or((NOT_FOUND, "an error occurred when try to find sandbox: not found"))?.status();
            if !request.verbose {
                status.info.clear();
            }
            status.encode_to_vec()
        }
    })
}

async fn good(respond: SendResponse<Bytes>, message: &[u8]) -> Result<(), h2::Error> {
    let mut stream = headers(respond)?;
    send(&mut stream, &framed(message)).await?;
    end(stream)
}

fn error(mut respond: SendResponse<Bytes>, code: u32, message: &'static str) -> Result<(), h2::Error> {
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", percent_encoded(message));
    respond.send_response(response.body(()).unwrap(), true).map(drop)
}

/// As gRPC wants it in a header.
fn percent_encoded(message: &str) -> String {
    let encoded = message.bytes().map(|byte| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

async fn bad(mut respond: SendResponse<Bytes>, how: Misbehaviour, right: Vec<u8>) -> Result<(), h2::Error> {
    let half = &framed(&right)[..5 + right.len() / 2];
    match how {
        Misbehaviour::Error(code, message) => error(respond, code, message),
        Misbehaviour::Message(message) => good(respond, &message).await,
        Misbehaviour::Huge(length) => good(respond, &filled(length)).await,
        Misbehaviour::Claims(length) => {
            let mut stream = headers(respond)?;
            let mut message = vec![0];
            message.extend(length.to_be_bytes());
            message.extend([0; 100]);
            send(&mut stream, &message).await?;
            std::future::pending().await
        }
        Misbehaviour::Truncated => {
            let mut stream = headers(respond)?;
            send(&mut stream, half).await?;
            end(stream)
        }
        Misbehaviour::Endless => {
            let mut stream = headers(respond)?;
            loop {
                send(&mut stream, &framed(&right)).await?;
            }
        }
        Misbehaviour::Trickle => {
            let mut stream = headers(respond)?;
            for byte in framed(&filled(1 << 20)) {
                send(&mut stream, &[byte]).await?;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            end(stream)
        }
        Misbehaviour::Stall => std::future::pending().await,
        Misbehaviour::StallWithin => {
            let mut stream = headers(respond)?;
            send(&mut stream, half).await?;
            std::future::pending().await
        }
        Misbehaviour::Reset => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        Misbehaviour::GoAway => unreachable!("of the connection"),
    }
}

/// A well-formed message of about so many bytes, with nothing in it that anybody knows.
fn filled(length: u32) -> Vec<u8> {
    let mut message = vec![FILLER];
    prost::encode_length_delimiter(length as usize, &mut message).unwrap();
    message.resize(message.len() + length as usize, 0);
    message
}

/// gRPC's length before a message.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

fn headers(mut respond: SendResponse<Bytes>) -> Result<SendStream<Bytes>, h2::Error> {
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    respond.send_response(response, false)
}

fn end(mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(OK));
    stream.send_trailers(trailers)
}

/// No more than the other side takes.
async fn send(stream: &mut SendStream<Bytes>, bytes: &[u8]) -> Result<(), h2::Error> {
    for chunk in bytes.chunks(16 << 10) {
        let mut rest = Bytes::copy_from_slice(chunk);
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            if stream.capacity() == 0 {
                match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                    Some(capacity) => capacity?,
                    None => return Err(Reason::CANCEL.into()),
                };
            }
            let capacity = stream.capacity().min(rest.len());
            stream.send_data(rest.split_to(capacity), false)?;
        }
    }
    Ok(())
}

/// The message of a request.
async fn body(mut stream: RecvStream) -> Result<Bytes, h2::Error> {
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(body.freeze().split_off(5))
}
