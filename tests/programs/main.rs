//! Real programs and hostile peers, on loopback.
