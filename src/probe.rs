//! Probes: they ask the network and return an observation. They never know what was expected.

pub mod dns;
pub mod tcp;
