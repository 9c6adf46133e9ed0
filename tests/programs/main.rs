//! Real programs and hostile peers, on loopback: the built binary against Prometheus, bind9, and servers and files that
//! mean it ill. One module a subject.

//X mod agent;
mod bind9;
mod check;
mod configuration;
mod demo;
mod hostile_dns;
mod hostile_tcp;
mod http;
mod prometheus;
//X mod series;
mod support;
