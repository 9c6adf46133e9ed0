//! The messages of `runtime.v1`, with only the fields that are sent or read; prost skips the others. Field numbers are those
//! of the Kubernetes repository's `cri-api/pkg/apis/runtime/v1/api.proto`.

use std::collections::HashMap;

use prost::{
    Message,
    bytes::{Buf, Bytes},
};

/// `PodSandboxState.SANDBOX_READY`.
pub const READY: i32 = 0;
/// `ContainerState.CONTAINER_RUNNING`.
pub const RUNNING: i32 = 1;
/// `NamespaceMode.NODE`: the host's.
pub const NODE: i32 = 2;

/// One item of a list may be so long: nothing bounds a pod's labels but etcd, which by default takes objects of 1.5 MiB.
const LONGEST_ITEM: usize = 2 << 20;

#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {
    #[prost(string, tag = "1")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// Without a filter: all. The answer has [`ListedSandbox`] as its [`items`].
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxRequest {}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Message)]
pub struct ListedSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(int32, tag = "3")]
    pub state: i32,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatus {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int32, tag = "3")]
    pub state: i32,
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodSandboxNetworkStatus>,
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxPodSandboxStatus>,
    #[prost(string, tag = "9")]
    pub runtime_handler: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    pub ip: String,
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodIp {
    #[prost(string, tag = "1")]
    pub ip: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct LinuxPodSandboxStatus {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NamespaceOption {
    #[prost(int32, tag = "1")]
    pub network: i32,
}

/// The answer has [`Container`] as its [`items`].
#[derive(Clone, PartialEq, Message)]
pub struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerFilter {
    #[prost(message, optional, tag = "2")]
    pub state: Option<ContainerStateValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStateValue {
    #[prost(int32, tag = "1")]
    pub state: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(int32, tag = "6")]
    pub state: i32,
}

/// The still encoded items of an answer that is one list, in field 1. prost would decode them all at once, and an item of
/// two bytes becomes hundreds: here their number and length are known before one is decoded.
///
/// # Errors
/// The answer is no such message, or has more or longer items than can be believed.
pub fn items(mut answer: Bytes, most: usize) -> Result<Vec<Bytes>, String> {
    let mut items = Vec::new();
    while answer.has_remaining() {
        let key = prost::decode_length_delimiter(&mut answer).map_err(|why| why.to_string())?;
        let (field, length) = match key & 7 {
            0 => {
                prost::decode_length_delimiter(&mut answer).map_err(|why| why.to_string())?;
                (None, 0)
            }
            1 => (None, 8),
            2 => (Some(key >> 3), prost::decode_length_delimiter(&mut answer).map_err(|why| why.to_string())?),
            5 => (None, 4),
            kind => return Err(format!("a field of wire type {kind}")),
        };
        if length > answer.remaining() {
            return Err("it is truncated".to_owned());
        }
        let value = answer.split_to(length);
        if field == Some(1) {
            if items.len() == most {
                return Err(format!("more than {most} items"));
            }
            if length > LONGEST_ITEM {
                return Err(format!("an item of {length} bytes"));
            }
            items.push(value);
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All of them at once, as prost reads lists.
    #[derive(Clone, PartialEq, Message)]
    struct List {
        #[prost(bytes = "vec", repeated, tag = "1")]
        items: Vec<Vec<u8>>,
        #[prost(int64, tag = "2")]
        number: i64,
        #[prost(fixed64, tag = "3")]
        long: u64,
        #[prost(fixed32, tag = "4")]
        short: u32,
        #[prost(string, tag = "2000")]
        text: String,
    }

    #[test]
    fn lists_are_bounded() {
        let list = |count: usize, length: usize| {
            List { items: vec![vec![0; length]; count], ..List::default() }.encode_to_vec()
        };
        assert_eq!(items(list(3, 2).into(), 3).unwrap().len(), 3);
        assert_eq!(items(list(4, 2).into(), 3).unwrap_err(), "more than 3 items");
        assert_eq!(items(list(1, 2 << 20).into(), 3).unwrap().len(), 1);
        assert_eq!(items(list(1, (2 << 20) + 1).into(), 3).unwrap_err(), "an item of 2097153 bytes");
        assert_eq!(items(Bytes::new(), 3).unwrap(), Vec::<Bytes>::new());
        for (truncated, why) in [
            (&[0x0a_u8, 5, 1][..], "it is truncated"),
            (&[0x09, 1], "it is truncated"),
            (&[0x0b], "a field of wire type 3"),
        ] {
            assert_eq!(items(Bytes::copy_from_slice(truncated), 3).unwrap_err(), why);
        }
    }

    proptest! {
        #[test]
        fn items_are_found_between_other_fields(
            list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..9),
            number in any::<i64>(),
            long in any::<u64>(),
            short in any::<u32>(),
            text in ".{0,200}",
        ) {
            let list = List { items: list, number, long, short, text };
            let found = items(list.encode_to_vec().into(), 9).unwrap();
            prop_assert_eq!(found.iter().map(|item| item.to_vec()).collect::<Vec<_>>(), list.items);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let length = bytes.len();
            if let Ok(found) = items(bytes.into(), 9) {
                prop_assert!(found.len() <= 9 && found.iter().map(Bytes::len).sum::<usize>() <= length);
            }
        }
    }
}
